"""What the system tells of the file system that a directory is on: its kind, whether it can be written, its room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from checkpointable.storage.findings import Finding, Outcome
from checkpointable.storage.local import LocalStore

_MOUNTS = Path("/proc/self/mounts")
_IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}
_OVER_A_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "gpfs", "beegfs", "afs", "glusterfs"}
_ESCAPES = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}


@dataclass(frozen=True)
class Mount:
    """One line of ``/proc/mounts``."""

    source: str
    place: str
    kind: str


def findings(directory: Path, needed_bytes: int | None) -> Iterator[Finding]:
    """What is known of a directory that exists; ``needed_bytes`` is the size of the newest checkpoint there, if any."""
    yield _kind(directory)
    if _is_read_only(directory):
        yield Finding(
            "read-only",
            Outcome.PROBLEM,
            "the file system is mounted read-only: no checkpoint can be saved there.",
            "Mount it for writing, or choose another dirpath.",
        )
    yield _room(directory, needed_bytes)
    yield Finding("quota", Outcome.UNKNOWN, "not looked up. A save beyond it fails like one on a full disk.")


def mount_of(directory: Path) -> Mount | None:
    """The mount that a directory is on; ``None`` where the system does not tell."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return None
    mounts = [Mount(*map(_unescaped, line.split(" ")[:3])) for line in lines]
    real = Path(os.path.realpath(directory))
    above = [mount for mount in mounts if real.is_relative_to(mount.place)]
    # of two at one place, the later one covers the earlier
    return max(enumerate(above), key=lambda it: (len(it[1].place), it[0]), default=(0, None))[1]


def _is_read_only(directory: Path) -> bool:
    try:
        return hasattr(os, "statvfs") and bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:  # not told; the attempt to write shows it
        return False


def _kind(directory: Path) -> Finding:
    what, mount = "file system", mount_of(directory)
    if mount is None:
        return Finding(what, Outcome.UNKNOWN, "this system does not tell its kind.")
    shown = f"{mount.kind} at {mount.place}"
    if mount.kind in _IN_MEMORY:
        return Finding(
            what,
            Outcome.WARNING,
            f"{shown}, which is in memory: its files are gone when the machine restarts.",
            "Choose a dirpath on a disk.",
        )
    if mount.kind == "overlay":
        return Finding(
            what,
            Outcome.WARNING,
            f"{shown}: if it is that of a container, its files are gone with the container.",
            "Choose a dirpath on a volume that stays.",
        )
    if mount.kind in _OVER_A_NETWORK:
        return Finding(what, Outcome.OK, f"{shown}, over a network: what is found here is what this machine sees.")
    return Finding(what, Outcome.OK, f"{shown}.")


def _room(directory: Path, needed: int | None) -> Finding:
    what, free = "free room", LocalStore(directory).free_bytes()
    if free is None:
        return Finding(what, Outcome.UNKNOWN, "the file system does not tell it. It is taken for large enough.")
    if needed is None:
        compared = "there is no checkpoint to compare it with"
    else:
        compared = f"the newest checkpoint has {needed:,} bytes"
    if free >= (needed or 1):
        return Finding(what, Outcome.OK, f"{free:,} bytes; {compared}.")
    missing = (needed or 1) - free
    return Finding(
        what,
        Outcome.PROBLEM,
        f"{free:,} bytes; {compared}: the next save finds no room.",
        f"Free at least {missing:,} bytes, or choose another dirpath.",
    )


def _unescaped(text: str) -> str:
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text
