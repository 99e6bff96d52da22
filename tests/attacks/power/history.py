"""What a recorded program did to one directory, as a history of an abstract file system.

Inodes are numbers. A history is a list of events, of which there are five kinds: bytes are written, a size is set,
names of one directory change, something is synced, and the program states what is durable.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from attacks.power.system_calls import Call

MARK = b"/durable/"
_NOT_MODELLED = {"pwritev", "pwritev2", "sendfile", "copy_file_range", "splice", "truncate", "sync", "syncfs"}
_STARTS = {"fork", "vfork", "clone", "clone3"}
_AT_DIRECTORIES = {"openat", "mkdirat", "unlinkat", "linkat", "symlinkat", "renameat", "renameat2"}


@dataclass(frozen=True)
class Write:
    """Bytes are written to a file at an offset, by direct writes or not."""

    inode: int
    at: int
    data: bytes


@dataclass(frozen=True)
class Resize:
    """A file is cut or grows."""

    inode: int
    size: int


@dataclass(frozen=True)
class Names:
    """Names of a directory change together: what each leads to then, or ``None``."""

    inode: int
    changes: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Sync:
    """A file or a directory is synced: the events of it among the first ``covers`` ones are durable."""

    inode: int
    covers: int


@dataclass(frozen=True)
class Mark:
    """The program has said that a checkpoint of so many batches is durable, and the best one of this score."""

    batches: int
    score: float | None


Event = Write | Resize | Names | Sync | Mark


@dataclass
class _Opened:
    inode: int
    at: int = 0


@dataclass
class History:
    """What happened below ``root``, which is an empty directory at first, inode 0.

    Attributes:
        events: In the order in which the calls returned.
        directories: The names that each directory has at the end.
        links: The targets of symbolic links.
        sizes: Those of the files.
        complete: The names that each directory had when it was renamed.
    """

    root: Path
    events: list[Event] = field(default_factory=list)
    directories: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    links: dict[int, str] = field(default_factory=dict)
    complete: dict[int, set[str]] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    _opened: dict[int, _Opened] = field(default_factory=dict)
    _count: int = 0

    def add(self, calls: Iterable[Call]) -> None:
        """Go on with the calls of one more process, which has one table of open files."""
        self._opened.clear()
        events_after = [len(self.events)]
        for call in calls:
            if call.result >= 0 or call.arguments[0].startswith(MARK):
                self._apply(call, events_after[call.before])
            events_after.append(len(self.events))

    def _apply(self, call: Call, before: int) -> None:
        name, arguments = call.name, list(call.arguments)
        if name in _STARTS:
            assert any(b"CLONE_THREAD" in it for it in arguments), "the program started a process"
        elif name in ("access", "faccessat", "faccessat2"):
            self._mark(next((it for it in arguments if it.startswith(MARK)), None))
        elif name in _AT_DIRECTORIES or name in (
            "open",
            "creat",
            "link",
            "symlink",
            "rename",
            "unlink",
            "mkdir",
            "rmdir",
        ):
            self._change_names(name, arguments, call.result)
        elif arguments and arguments[0].isdigit() and (opened := self._opened.get(int(arguments[0]))) is not None:
            assert name not in _NOT_MODELLED, f"{name} is not modelled"
            self._use(name, arguments, call.result, opened, before)
        else:
            assert name not in ("sync", "truncate"), f"{name} is not modelled"

    def _mark(self, text: bytes | None) -> None:
        if text is not None:
            batches, score = text.removeprefix(MARK).decode().split("/")
            self.events.append(Mark(int(batches), None if score == "None" else float(score)))

    def _use(self, name: str, arguments: list[bytes], result: int, opened: _Opened, before: int) -> None:
        if name == "close":
            del self._opened[int(arguments[0])]
        elif name in ("dup", "dup2", "dup3") or (name == "fcntl" and arguments[1].startswith(b"F_DUPFD")):
            self._opened[result] = opened
        elif name == "lseek":
            opened.at = result
        elif name in ("write", "writev"):
            data = b"".join(arguments[1:-1:2])  # of ``writev``: each piece, and its length
            self._write(opened.inode, opened.at, data[:result])
            opened.at += result
        elif name == "pwrite64":
            self._write(opened.inode, int(arguments[3]), arguments[1][:result])
        elif name == "ftruncate":
            self._resize(opened.inode, int(arguments[1]))
        elif name == "fallocate":
            self._resize(opened.inode, max(self.sizes[opened.inode], int(arguments[2]) + int(arguments[3])))
        elif name in ("fsync", "fdatasync"):
            self.events.append(Sync(opened.inode, before))

    def _write(self, inode: int, at: int, data: bytes) -> None:
        self.sizes[inode] = max(self.sizes[inode], at + len(data))
        self.events.append(Write(inode, at, data))

    def _resize(self, inode: int, size: int) -> None:
        if size != self.sizes[inode]:
            self.sizes[inode] = size
            self.events.append(Resize(inode, size))

    def _change_names(self, name: str, arguments: list[bytes], result: int) -> None:
        target = os.fsdecode(arguments.pop(0)) if name.startswith("symlink") else ""
        places = self._places(name, arguments)
        if places is None:
            return
        (folder, base), *others = places
        held = self.directories[folder].get(base)
        if name in ("open", "openat", "creat"):
            self._open(folder, base, b"|".join([name.encode(), *arguments]), result)
        elif name.startswith("mkdir"):
            self._name(folder, {base: self._new("directory")})
        elif name.startswith("symlink"):
            self._name(folder, {base: self._new("link", target)})
        elif name.startswith(("unlink", "rmdir")):
            self._name(folder, {base: None})
        elif held is not None:
            ((other, new),) = others
            if name.startswith("link"):
                self._name(other, {new: held})
                return
            assert folder == other, "a name moves to another directory, which is not modelled"
            if held in self.directories:
                self.complete.setdefault(held, set(self.directories[held]))
            self._name(folder, {base: None, new: held})

    def _open(self, folder: int, base: str, how: bytes, result: int) -> None:
        inode = self.directories[folder].get(base) if base else folder
        while inode in self.links:
            inode = self.directories[folder].get(self.links[inode])
        if inode is None:
            if b"O_CREAT" not in how and not how.startswith(b"creat"):
                return
            inode = self._new("file")
            self._name(folder, {base: inode})
        elif b"O_TRUNC" in how:
            self._resize(inode, 0)
        assert b"O_APPEND" not in how, "appending is not modelled"
        self._opened[result] = _Opened(inode)

    def _new(self, kind: str, target: str = "") -> int:
        self._count += 1
        if kind == "directory":
            self.directories[self._count] = {}
        elif kind == "link":
            self.links[self._count] = target
        else:
            self.sizes[self._count] = 0
        return self._count

    def _name(self, folder: int, changes: dict[str, int | None]) -> None:
        for name, inode in changes.items():
            self.directories[folder].pop(name, None)
            if inode is not None:
                self.directories[folder][name] = inode
        self.events.append(Names(folder, tuple(changes.items())))

    def _places(self, name: str, arguments: list[bytes]) -> list[tuple[int, str]] | None:
        """The directory and the last part of each path; ``None`` if they are not below the root."""
        count = 2 if name.startswith(("link", "rename")) else 1
        step = 2 if name in _AT_DIRECTORIES else 1
        found = []
        for number in range(count):
            at, path = (arguments[step * number : step * number + 2]) if step == 2 else (b"", arguments[number])
            place = self._place(at, os.fsdecode(path))
            if place is None:
                assert number == 0, f"{name} leads out of the directory"
                return None
            found.append(place)
        return found

    def _place(self, at: bytes, path: str) -> tuple[int, str] | None:
        folder = 0
        if at.isdigit() and not path.startswith("/"):
            if int(at) not in self._opened:
                return None
            folder = self._opened[int(at)].inode
        elif Path(path).is_relative_to(self.root):
            path = os.path.relpath(path, self.root)
        else:
            return None
        *parents, base = [part for part in path.split("/") if part not in ("", ".")] or [""]
        for part in parents:
            inode = self.directories.get(folder, {}).get(part)
            if inode is None:
                return None  # a call that failed, or one that reads past a link
            folder = inode
        return (folder, base) if folder in self.directories else None
