"""Tries out what a file system does with names: renames, links, upper and lower case, and whether names are durable."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from pathlib import Path

from checkpointable.storage import commit
from checkpointable.storage.findings import Finding, Outcome, milliseconds_since, reason_of

_MOST_RENAMES, _MOST_SECONDS = 100, 1.0


def rename(folder: Path) -> str:
    """Replace a file many times while another thread reads it, which always has to find one of the contents."""
    file, new, contents = folder / "file", folder / "new", [bytes([number]) * 4096 for number in (1, 2)]
    file.write_bytes(contents[0])
    done, number, begun = threading.Event(), 0, time.monotonic()
    wrong: list[str] = []
    reader = threading.Thread(
        target=_read_until, args=(done, file, contents, wrong), name="checkpointable-reader", daemon=True
    )
    if os.name != "nt":  # there, a file that is read cannot be replaced
        reader.start()
    try:
        while number < _MOST_RENAMES and time.monotonic() - begun < _MOST_SECONDS and not wrong:
            number += 1
            new.write_bytes(contents[number % 2])
            os.replace(new, file)
            if new.exists() or file.read_bytes() != contents[number % 2]:
                raise OSError("a renamed file does not replace the one that has its name")
    finally:
        done.set()
        if reader.ident is not None:
            reader.join()
    if wrong:
        raise OSError(wrong[0])
    return f"{number} times, and a reader found the old file or the new one each time."


def _read_until(done: threading.Event, file: Path, contents: list[bytes], wrong: list[str]) -> None:
    while not done.is_set() and not wrong:
        try:
            if file.read_bytes() not in contents:
                wrong.append("a reader found a part of a file while another took its name")
        except OSError as error:
            wrong.append(f"a reader found no file while another took its name ({reason_of(error)})")


def hard_links(folder: Path) -> str:
    """Give a file a second name, and try to give it a name that is taken."""
    file, link = folder / "file", folder / "link"
    file.write_bytes(b"1")
    os.link(file, link)
    if not link.samefile(file):
        raise OSError("a link leads to another file")
    file.unlink()
    file.write_bytes(b"2")
    with contextlib.suppress(FileExistsError):
        os.link(file, link)
        raise OSError("a link replaces a file that has its name")
    if link.read_bytes() != b"1":
        raise OSError("a link replaces a file that has its name")
    return "made; one to a taken name is refused, so no run replaces a file of another."


def symbolic_links(folder: Path) -> str:
    """Make a link, and replace it by another."""
    for name in ("1", "2"):
        (folder / name).write_bytes(name.encode())
        os.symlink(name, folder / "new")
        os.replace(folder / "new", folder / "link")
    if not (folder / "link").is_symlink() or (folder / "link").read_bytes() != b"2":
        raise OSError("a link does not lead to the file that it was made for")
    return "made, and moved in one step."


def case(folder: Path) -> str:
    """Look up a name in the other case."""
    (folder / "a").touch()
    if (folder / "A").exists():
        return "upper and lower case are the same: of two names that differ only in that, the second gets -v1."
    return "upper and lower case differ."


def sync_names(folder: Path) -> str | Finding:
    """Make a name durable. ``commit.sync_directory`` is silent where a fit of this process has seen it refused."""
    if os.name == "nt":
        raise OSError(errno.ENOTSUP, "Windows has no way to do it")
    (folder / "file").touch()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        begun = time.perf_counter()
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in commit.CANNOT_SYNC:
            raise
        refused = f"{reason_of(error)}: a fit does not start there."
        return Finding("sync of names", Outcome.PROBLEM, refused, "Free space there, or choose another dirpath.")
    finally:
        os.close(descriptor)
    return f"a new name took {milliseconds_since(begun)} (fsync of the directory)."
