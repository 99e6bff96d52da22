"""Why a checkpoint is saved."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Reason(StrEnum):
    """Why a checkpoint is saved. One file can serve several reasons; the first of them in this order is its kind."""

    BEST = "best"
    EPOCH = "epoch"
    STEP = "step"
    TIME = "time"
    INTERVAL = "interval"
    LAST = "last"
    EXCEPTION = "exception"
    MANUAL = "manual"
    KEPT_EPOCH = "kept_epoch"  # beside EPOCH: the file is never deleted


PERIODIC = frozenset({Reason.INTERVAL, Reason.STEP, Reason.TIME})
"""Reasons that come again soon: such a save may wait for a later safe point, and its copy may overlap with training."""


def kind_of(reasons: Iterable[Reason]) -> Reason:
    """The kind of a file that is saved for these reasons."""
    given = set(reasons)
    return next(reason for reason in Reason if reason in given)


def known(reasons: Iterable[str]) -> frozenset[Reason]:
    """The reasons that a file states, without those of a later version of the library."""
    return frozenset(reason for reason in Reason if reason in set(reasons))
