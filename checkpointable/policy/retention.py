"""Which files stay. Each rule names the files that it keeps; a file stays as long as any rule keeps it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Protocol

from checkpointable.policy.position import Position
from checkpointable.policy.reasons import Reason

_BEST_ALONE = frozenset({Reason.BEST})


@dataclass(frozen=True, kw_only=True)
class SavedFile:
    """A file of a run, as the rules see it."""

    path: str
    position: Position
    reasons: Set[Reason]
    score: float | None = None  # on exactly these weights, if the file is one of the best
    weights_only: bool = False


def newest_to_resume(files: Sequence[SavedFile]) -> Sequence[SavedFile]:
    """The newest file that can be resumed from, if there is one, else the newest."""
    newest = next((file for file in reversed(files) if not file.weights_only), None)
    return files[-1:] if newest is None else [newest]


class Rule(Protocol):
    """Something that keeps files."""

    def kept(self, files: Sequence[SavedFile]) -> Sequence[SavedFile]:
        """Those of the files, given oldest first, that this rule keeps."""


@dataclass(frozen=True)
class KeepNewest:
    """The newest files, without those saved for being best alone; ``count``: 0 none, -1 all."""

    count: int

    def kept(self, files: Sequence[SavedFile]) -> Sequence[SavedFile]:
        """The last ``count`` of them, oldest first."""
        candidates = [file for file in files if not file.reasons <= _BEST_ALONE]
        return candidates if self.count == -1 else candidates[max(len(candidates) - self.count, 0) :]


@dataclass(frozen=True)
class KeepBest:
    """The files with the best scores; ``count``: 0 none, -1 all.

    NaN is never best and never keeps a later file from being best. An equal score is not better. 0.0 is a score.
    """

    count: int
    mode: str = "min"
    min_delta: float = 0.0  # by how much a score must beat the worst kept one to take its place

    def kept(self, files: Sequence[SavedFile]) -> Sequence[SavedFile]:
        """The best ``count`` of them, best first; of equal ones the older first."""
        sign = 1.0 if self.mode == "min" else -1.0
        scored = [(sign * file.score, file) for file in files if file.score is not None and not math.isnan(file.score)]
        ranked = [file for _, file in sorted(scored, key=lambda item: item[0])]
        return ranked if self.count == -1 else ranked[: self.count]

    def admits(self, score: float, others: Iterable[float]) -> bool:
        """Whether a file with this score belongs to the best, beside files with the ``others``' scores."""
        if math.isnan(score) or self.count == 0:
            return False
        better_first = sorted(others, reverse=self.mode == "max")
        if self.count == -1 or len(better_first) < self.count:
            return True
        worst = better_first[self.count - 1]
        return worst - score > self.min_delta if self.mode == "min" else score - worst > self.min_delta


@dataclass(frozen=True)
class KeepForever:
    """The files of epochs that are kept for ever (``keep_every_n_epochs``)."""

    def kept(self, files: Sequence[SavedFile]) -> Sequence[SavedFile]:
        """Those saved for that reason."""
        return [file for file in files if Reason.KEPT_EPOCH in file.reasons]


@dataclass(frozen=True)
class KeepLast:
    """The newest file to resume from, whatever it was saved for: without it a run could not be resumed."""

    def kept(self, files: Sequence[SavedFile]) -> Sequence[SavedFile]:
        """That one."""
        return newest_to_resume(files)


@dataclass(frozen=True, kw_only=True)
class Retention:
    """The rules of one run. A file stays as long as any of them keeps it."""

    best: KeepBest
    newest: KeepNewest
    others: tuple[Rule, ...] = (KeepForever(), KeepLast())

    @property
    def temporary(self) -> Retention:
        """Without the rules that keep a file for ever: what only they keep will never be deleted."""
        newest = KeepNewest(0) if self.newest.count == -1 else self.newest
        return replace(self, newest=newest, others=tuple(it for it in self.others if not isinstance(it, KeepForever)))

    def kept(self, files: Sequence[SavedFile]) -> Sequence[SavedFile]:
        """Those that any rule keeps, oldest first."""
        rules: tuple[Rule, ...] = (self.best, self.newest, *self.others)
        stay = {file.path for rule in rules for file in rule.kept(files)}
        return [file for file in files if file.path in stay]
