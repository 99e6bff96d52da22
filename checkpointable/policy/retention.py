"""Which checkpoints stay: the best by a score, the newest by position, and the union of both."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best checkpoints so far, best first. Immutable: ``add`` gives the next state.

    NaN is never best, and never keeps a later one from being best. Equal is not better. 0.0 is a value like any other.

    Attributes:
        keep: How many are kept; 0 = none, -1 = all.
        mode: ``"min"``: the lowest score is best; ``"max"``: the highest.
        min_delta: By how much a score must beat the worst kept one to take its place.
        scores: File names and their scores, best first.
    """

    keep: int
    mode: str = "min"
    min_delta: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)

    def admits(self, score: float) -> bool:
        """Whether a checkpoint with this score belongs to the best."""
        if math.isnan(score) or self.keep == 0:
            return False
        if self.keep == -1 or len(self.scores) < self.keep:
            return True
        worst = list(self.scores.values())[-1]
        return worst - score > self.min_delta if self.mode == "min" else score - worst > self.min_delta

    def add(self, name: str, score: float) -> Best:
        """With this checkpoint in its place, and the one that falls out gone. Among equals the earlier stays ahead."""
        if math.isnan(score):
            return self
        others = {other: value for other, value in self.scores.items() if other != name}
        sign = 1.0 if self.mode == "min" else -1.0
        ranked = sorted({**others, name: score}.items(), key=lambda item: sign * item[1])
        return replace(self, scores=dict(ranked if self.keep == -1 else ranked[: self.keep]))

    def without(self, names: Iterable[str]) -> Best:
        """Without these, because their files are gone."""
        gone = set(names)
        return replace(self, scores={name: score for name, score in self.scores.items() if name not in gone})

    @property
    def name(self) -> str | None:
        """The best of all."""
        return next(iter(self.scores), None)

    @property
    def worst(self) -> str | None:
        """The next to fall out."""
        return next(reversed(self.scores), None)


@dataclass(frozen=True, kw_only=True)
class Newest:
    """The newest checkpoints, newest last. Immutable: ``add`` gives the next state.

    Attributes:
        keep: How many are kept; 0 = none, -1 = all.
        names: File names, newest last.
    """

    keep: int
    names: tuple[str, ...] = ()

    def add(self, name: str) -> Newest:
        """With this checkpoint as the newest, and those that fall out gone."""
        names = (*(other for other in self.names if other != name), name)
        return replace(self, names=names if self.keep == -1 else names[max(len(names) - self.keep, 0) :])

    def without(self, gone: Iterable[str]) -> Newest:
        """Without these, because their files are gone."""
        lost = set(gone)
        return replace(self, names=tuple(name for name in self.names if name not in lost))
