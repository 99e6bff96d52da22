"""Puts a state that a power cut may leave on a disk, and says what of the promise is broken in it.

The promise, from the first save that was reported durable on: ``latest`` finds a checkpoint that is as new as that one
or newer, ``best`` one that is as good or better, neither raises, and a file under a final name is intact. What is
intact is not asked of the library: it is what the recorded program had written in the end.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from attacks.power.cuts import Cut, contents_at_end, cuts
from attacks.power.history import History

from checkpointable import best, latest
from checkpointable.catalog.info import read_info
from checkpointable.policy.names import SUFFIX


@dataclass
class Verdict:
    """What was found in the states of one history.

    Attributes:
        states: How many different ones were looked at.
        broken: What of the promise, and the points where it was.
    """

    states: int = 0
    broken: dict[str, list[str]] = field(default_factory=dict)

    def note(self, what: str, cut: Cut, why: str) -> None:
        self.broken.setdefault(what, []).append(f"after event {cut.point}, promised {cut.promised}: {why}")


def judge(history: History, where: Path, seed: int, *, points: int | None = None) -> Verdict:
    """Look at the states of a history, or of so many points of it."""
    verdict, seen = Verdict(), set()
    intact = set(contents_at_end(history).values())
    disk = _Disk(where, intact)
    for cut in cuts(history, random.Random(seed), points=points):
        held = ((path, digest(it) if isinstance(it, bytes) else (it,)) for path, it in cut.tree.items())
        state = frozenset(held), cut.promised
        if state in seen:
            continue
        seen.add(state)
        verdict.states += 1
        with disk.holding(cut) as there:
            _look(there, cut, verdict, set(_damaged(cut, history, intact)))
    return verdict


def _damaged(cut: Cut, history: History, intact: set[bytes]) -> Iterator[str]:
    """The checkpoints, by their paths, that are not what the program had written in the end, there or elsewhere."""
    for path, inode in cut.inodes.items():
        name = path.rpartition("/")[2]
        if not name.endswith(SUFFIX) or inode in history.links:
            continue
        if inode not in history.directories:
            if cut.tree[path] not in intact:
                yield path
        elif inode in history.complete:
            inside = {it.removeprefix(f"{path}/"): it for it in cut.tree if it.startswith(f"{path}/")}
            lost = history.complete[inode] - inside.keys()
            if lost or any(cut.tree[it] not in intact for it in inside.values()):
                yield path


def _look(there: Path, cut: Cut, verdict: Verdict, damaged: set[str]) -> None:
    promised = cut.promised
    for path in damaged:
        verdict.note("damaged", cut, f"{path} is not intact")
    for name, find in (("latest", latest), ("best", best)):
        try:
            with warnings.catch_warnings(action="ignore"):
                found = find(there)
            info = None if found is None else read_info(found)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is reported
            verdict.note("raises", cut, f"{name}: {error!r}")
            continue
        if found is not None and os.path.relpath(found, there) in damaged:
            verdict.note("taken", cut, f"{name} finds {found}, which is not intact")
        if promised is None:
            continue
        if name == "latest" and (info is None or info.batches < promised.batches):
            verdict.note("latest", cut, f"found {found}")
        if name == "best" and promised.score is not None and (info is None or info.score > promised.score):
            verdict.note("best", cut, f"found {found}")


class _Disk:
    """Holds one state after the other. What is whole is written once, and then linked."""

    def __init__(self, root: Path, whole: Iterable[bytes]) -> None:
        self._contents, self._there = root / "contents", root / "there"
        self._contents.mkdir()
        for content in whole:
            (self._contents / digest(content)).write_bytes(content)

    @contextlib.contextmanager
    def holding(self, cut: Cut) -> Iterator[Path]:
        self._there.mkdir()
        try:
            for path in sorted(cut.tree):
                self._put(self._there / path, cut.tree[path])
            yield self._there
        finally:
            shutil.rmtree(self._there)

    def _put(self, path: Path, held: bytes | str | None) -> None:
        if held is None:
            path.mkdir()
        elif isinstance(held, str):
            path.symlink_to(held)
        elif (whole := self._contents / digest(held)).exists():
            path.hardlink_to(whole)
        else:
            path.write_bytes(held)


def digest(held: bytes) -> str:
    return blake2b(held, digest_size=16).hexdigest()
