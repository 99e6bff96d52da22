"""Why a checkpoint is saved."""

from __future__ import annotations

from collections.abc import Collection
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
    NEWEST = "newest"  # beside a best file that holds weights only: everything, to resume from
    KEPT_EPOCH = "kept_epoch"  # beside EPOCH: the file is never deleted


def kind_of(reasons: Collection[Reason]) -> Reason:
    """The reason that gives a file its kind."""
    return next(reason for reason in Reason if reason in reasons)


PERIODIC = frozenset({Reason.INTERVAL, Reason.STEP, Reason.TIME})
"""Reasons that come again soon: such a save may wait for a later safe point, and its copy may overlap with training."""
