"""The states of a directory that a power cut may leave, at any point of a history.

The model is the least that POSIX promises, as in ALICE ("All File Systems Are Not Created Equal", OSDI 2014) and
CrashMonkey ("Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing", OSDI 2018), without the favours of
ext4:

- ``fsync`` of a file makes its bytes and its size durable, and not its names. ``fsync`` of a directory makes its names
  durable, and not what they lead to. A direct write is as durable as any other.
- Of the changes of names since a directory was synced, any may be missing, but no change of a name is there without the
  earlier ones of the same name. A rename is there as a whole.
- Of what was written to a file since it was synced, all may be lost, or a part: what follows a byte, sectors of 4096 or
  512 bytes anywhere, all but the last write. The size may be grown already; then zeros are where bytes are missing, or
  old bytes of another file.

Not modelled: a rename to another directory, two writes to one place of which the earlier one stays, and mapped memory.
The one mapped file of a run, that of its losses, is no checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from attacks.power.history import History, Mark, Names, Resize, Sync, Write

_ALL_SUBSETS = 6  # of so many pending changes of names, all subsets are tried
_DRAWN_SUBSETS = 24
_MOST_OF_A_POINT = 60


@dataclass(frozen=True)
class Cut:
    """What a power cut leaves.

    Attributes:
        point: How many events had happened.
        promised: What the program had said to be durable by then.
        tree: What is at each path: the bytes of a file, the target of a link, or ``None`` for a directory.
        inodes: The inode at each path.
    """

    point: int
    promised: Mark | None
    tree: Mapping[str, bytes | str | None]
    inodes: Mapping[str, int]


def cuts(history: History, draw: random.Random, *, points: int | None = None) -> Iterator[Cut]:
    """The states at every point, or at so many drawn ones."""
    everywhere = range(1, len(history.events) + 1)
    chosen = everywhere if points is None or points >= len(everywhere) else sorted(draw.sample(everywhere, points))
    files = _Files(history)
    for point in chosen:
        yield from _at(history, point, files, draw)


def contents_at_end(history: History) -> dict[int, bytes]:
    """The bytes that each file had in the end."""
    changes: dict[int, list[Write | Resize]] = {inode: [] for inode in history.sizes}
    for event in history.events:
        if isinstance(event, (Write, Resize)):
            changes[event.inode].append(event)
    return {inode: _applied(b"", of_file) for inode, of_file in changes.items()}


def without_a_cut(history: History) -> dict[str, bytes | str | None]:
    """What is at each path in the end."""
    contents = contents_at_end(history)
    paths = _paths(history, [event for event in history.events if isinstance(event, Names)])
    return {path: contents.get(inode, history.links.get(inode)) for path, inode in paths.items()}


def _at(history: History, point: int, files: _Files, draw: random.Random) -> Iterator[Cut]:
    events = history.events[:point]
    synced: dict[int, int] = {}
    promised = None
    for event in events:
        if isinstance(event, Sync):
            synced[event.inode] = max(event.covers, synced.get(event.inode, 0))
        elif isinstance(event, Mark):
            promised = event
    named = [(number, event) for number, event in enumerate(events) if isinstance(event, Names)]
    durable = [event for number, event in named if number < synced.get(event.inode, 0)]
    pending = [event for number, event in named if number >= synced.get(event.inode, 0)]
    options = []
    for subset in _subsets(pending, draw):
        paths = _paths(history, [*durable, *subset])
        open_files = {inode: path for path, inode in paths.items() if files.is_pending(inode, synced, point)}
        styles = [_styles(path) for path in open_files.values()]
        options += [(paths, dict(zip(open_files, chosen, strict=True))) for chosen in _some(styles, draw)]
    for paths, styles in options if len(options) <= _MOST_OF_A_POINT else draw.sample(options, _MOST_OF_A_POINT):
        contents = {
            inode: files.torn(inode, synced.get(inode, 0), point, styles.get(inode), draw)
            for inode in set(paths.values())
            if inode not in history.directories and inode not in history.links
        }
        tree = {path: contents.get(inode, history.links.get(inode)) for path, inode in paths.items()}
        yield Cut(point, promised, tree, paths)


def _subsets(pending: Sequence[Names], draw: random.Random) -> Iterator[list[Names]]:
    """Of changes of names those that may be there together. Few of them: all such subsets, else some."""
    earlier = [
        {j for j in range(i) if pending[j].inode == it.inode and _names(pending[j]) & _names(it)}
        for i, it in enumerate(pending)
    ]
    found = set()
    if len(pending) <= _ALL_SUBSETS:
        tries = (dict(enumerate(bits)) for bits in product((True, False), repeat=len(pending)))
    else:
        drawn = [draw.choice((0.0, 0.2, 0.5, 0.8, 0.95, 1.0)) for _ in range(_DRAWN_SUBSETS)]
        tries = ({i: draw.random() < share for i in range(len(pending))} for share in drawn)
    for wanted in tries:
        there: set[int] = set()
        for i in range(len(pending)):
            if wanted[i] and earlier[i] <= there:
                there.add(i)
        found.add(frozenset(there))
    return ([pending[i] for i in sorted(subset)] for subset in sorted(found, key=sorted))


def _names(event: Names) -> set[str]:
    return {name for name, _ in event.changes}


def _paths(history: History, changes: Sequence[Names]) -> dict[str, int]:
    """The inode at each path that can be reached."""
    directories: dict[int, dict[str, int]] = {}
    for event in changes:
        entries = directories.setdefault(event.inode, {})
        for name, inode in event.changes:
            entries.pop(name, None)
            if inode is not None:
                entries[name] = inode
    found: dict[str, int] = {}
    todo = [("", 0)]
    while todo:
        folder, number = todo.pop()
        for name, inode in directories.get(number, {}).items():
            found[folder + name] = inode
            if inode in history.directories:
                todo.append((f"{folder}{name}/", inode))
    return found


class _Files:
    """What each file of a history holds at each point, and what may be left of it."""

    def __init__(self, history: History) -> None:
        self._changes: dict[int, list[tuple[int, Write | Resize]]] = {}
        for number, event in enumerate(history.events):
            if isinstance(event, (Write, Resize)):
                self._changes.setdefault(event.inode, []).append((number, event))
        self._contents: dict[tuple[int, int], bytes] = {}

    def is_pending(self, inode: int, synced: Mapping[int, int], point: int) -> bool:
        return any(synced.get(inode, 0) <= number < point for number, _ in self._changes.get(inode, ()))

    def torn(self, inode: int, synced: int, point: int, style: str | None, draw: random.Random) -> bytes:
        pending = [event for number, event in self._changes.get(inode, ()) if synced <= number < point]
        whole = self._content(inode, point)
        if not pending or style is None:
            return whole
        kept = self._content(inode, synced)
        return _STYLES[style](kept, whole, pending, self._others(inode), draw)

    def _others(self, inode: int) -> bytes:
        """The bytes of the largest of the earlier files."""
        found = [self._content(other, 1 << 60) for other in self._changes if other < inode]
        return max(found, key=len, default=b"")

    def _content(self, inode: int, until: int) -> bytes:
        changes = [event for number, event in self._changes.get(inode, ()) if number < until]
        key = inode, len(changes)
        if key not in self._contents:
            self._contents[key] = _applied(b"", changes)
        return self._contents[key]


def _applied(content: bytes, changes: Sequence[Write | Resize]) -> bytes:
    held = bytearray(content)
    for event in changes:
        if isinstance(event, Resize):
            held[event.size :] = bytes(max(0, event.size - len(held)))
        else:
            held.extend(bytes(max(0, event.at - len(held))))
            held[event.at : event.at + len(event.data)] = event.data
    return bytes(held)


def _grown(kept: bytes, whole: bytes, filling: bytes = b"") -> bytearray:
    """What was durable, with the new size, and zeros or other bytes after it."""
    held = bytearray(kept[: len(whole)])
    held += filling[len(held) : len(whole)]
    return held + bytes(len(whole) - len(held))


def _cut_at(whole: bytes, draw: random.Random) -> int:
    return 512 * draw.randrange(len(whole) // 512 + 1)


def _sectors(size: int) -> Callable[..., bytes]:
    def some(kept: bytes, whole: bytes, pending: object, others: bytes, draw: random.Random) -> bytes:
        held, share = _grown(kept, whole), draw.choice((0.1, 0.5, 0.9))
        for start in range(0, len(whole), size):
            if draw.random() < share:
                held[start : start + size] = whole[start : start + size]
        return bytes(held)

    return some


def _hole(kept: bytes, whole: bytes, pending: object, others: bytes, draw: random.Random) -> bytes:
    start = _cut_at(whole, draw)
    return whole[:start] + bytes(len(whole[start : start + 512])) + whole[start + 512 :]


def _first(kept: bytes, whole: bytes, pending: Sequence[Write | Resize], others: bytes, draw: random.Random) -> bytes:
    return _applied(kept, pending[: draw.randrange(len(pending))])


def _last(kept: bytes, whole: bytes, pending: Sequence[Write | Resize], others: bytes, draw: random.Random) -> bytes:
    return _applied(kept, pending[-1:])


_STYLES: dict[str, Callable[..., bytes]] = {
    "all": lambda kept, whole, pending, others, draw: whole,
    "lost": lambda kept, whole, pending, others, draw: kept,
    "4096": _sectors(4096),
    "512": _sectors(512),
    "zeros": lambda kept, whole, pending, others, draw: bytes(_grown(kept, whole)),
    "old bytes": lambda kept, whole, pending, others, draw: bytes(_grown(kept, whole, others)),
    "cut": lambda kept, whole, pending, others, draw: whole[: _cut_at(whole, draw)],
    "cut, size grown": lambda kept, whole, pending, others, draw: bytes(_grown(whole[: _cut_at(whole, draw)], whole)),
    "hole": _hole,
    "first writes": _first,
    "last write": _last,
}
_FEW = ["all", "lost", "512"]


def _styles(path: str) -> list[str]:
    """The ways to lose bytes of a file; fewer for one of a temporary name, where nobody looks for a checkpoint."""
    return _FEW if path.rpartition("/")[2].startswith(".") and path.count("/.") + path.startswith(".") else [*_STYLES]


def _some(styles: Sequence[Sequence[str]], draw: random.Random) -> list[tuple[str, ...]]:
    """All combinations of the ways to lose bytes of several files, or some."""
    combinations = 1
    for of_file in styles:
        combinations *= len(of_file)
    if combinations <= _MOST_OF_A_POINT:
        return list(product(*styles))
    return [tuple(draw.choice(of_file) for of_file in styles) for _ in range(_MOST_OF_A_POINT)]
