"""When a save is due. Each condition is asked at every safe point; ``AnyOf`` combines them by *or*."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from checkpointable.policy.position import Ended, Position
from checkpointable.policy.reasons import Reason

_NOT_DUE: frozenset[Reason] = frozenset()


class SafePoint(NamedTuple):
    """A moment at which the state is consistent and can be saved."""

    ended: Ended
    position: Position
    previous: Position  # at the safe point before
    seconds: float = 0.0  # of training since the last save that a time condition asked for


class Condition(Protocol):
    """Something that makes a save due."""

    def reasons(self, point: SafePoint) -> Set[Reason]:
        """Why a save is due at this safe point; empty if it is not."""


@dataclass(frozen=True)
class EveryNBatches:
    """Every so many batches, counted within the epoch."""

    batches: int

    def is_due(self, batch: int) -> bool:
        """Whether the ``batch``-th batch of an epoch, counted from 1, ends an interval."""
        return batch % self.batches == 0

    def reasons(self, point: SafePoint) -> Set[Reason]:
        """``interval`` after a batch that ends one."""
        due = point.ended is Ended.BATCH and self.is_due(point.position.batch)
        return {Reason.INTERVAL} if due else _NOT_DUE


@dataclass(frozen=True)
class EveryNTrainSteps:
    """Every so many optimizer steps, counted over the whole run."""

    steps: int

    def reasons(self, point: SafePoint) -> Set[Reason]:
        """``step`` after a batch in which the count of steps has reached or passed a multiple."""
        passed = point.position.step // self.steps > point.previous.step // self.steps
        return {Reason.STEP} if point.ended is Ended.BATCH and passed else _NOT_DUE


@dataclass(frozen=True)
class EveryNSeconds:
    """Whenever so many seconds of training time have passed since the last save of this kind."""

    seconds: float

    def reasons(self, point: SafePoint) -> Set[Reason]:
        """``time`` after the first batch for which the time has passed."""
        return {Reason.TIME} if point.ended is Ended.BATCH and point.seconds >= self.seconds else _NOT_DUE


@dataclass(frozen=True)
class EveryNEpochs:
    """Every so many epochs, at the end of the epoch; ``forever``: the file is never deleted."""

    epochs: int
    forever: bool = False

    def reasons(self, point: SafePoint) -> Set[Reason]:
        """``epoch`` at the end of an epoch that ends an interval, and ``kept_epoch`` for a file that stays."""
        if point.ended is not Ended.EPOCH or (point.position.epoch + 1) % self.epochs:
            return _NOT_DUE
        return {Reason.EPOCH, Reason.KEPT_EPOCH} if self.forever else {Reason.EPOCH}


@dataclass(frozen=True)
class AnyOf:
    """A save is due when any of these conditions says so; it is saved once, for all their reasons."""

    conditions: tuple[Condition, ...] = ()

    def reasons(self, point: SafePoint) -> Set[Reason]:
        """All reasons of all conditions."""
        found: Set[Reason] = _NOT_DUE
        for condition in self.conditions:
            reasons = condition.reasons(point)
            found = found | reasons if reasons else found
        return found

    def __bool__(self) -> bool:
        return bool(self.conditions)
