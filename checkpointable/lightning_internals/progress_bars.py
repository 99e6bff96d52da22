"""Shows in the trainer's progress bars how long ago the newest checkpoint became durable."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from checkpointable.lightning_internals.callbacks import callbacks
from checkpointable.lightning_internals.tree import Mixin, is_a, put_before

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ProgressBar
else:  # at run time, the base is the class of the bar that is observed
    ProgressBar = object


class Saves(Protocol):
    """What knows of the saves of a fit.

    Attributes:
        durable_at: When the newest file became durable, by ``time.monotonic``; ``None`` before the first.
    """

    durable_at: float | None


def observe(trainer: Trainer, saves: Saves) -> None:
    """Let the progress bars of a trainer show the age of the newest save. Doing it again changes whose saves."""
    for callback in callbacks(trainer):
        if is_a(callback, "ProgressBar"):
            put_before(_DatedBar, callback)
            callback.saves = saves


class _DatedBar(Mixin, ProgressBar):
    saves: Saves

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The same with ``saved``, unless something of that name is logged."""
        shown: dict[str, Any] = super().get_metrics(trainer, pl_module)
        if self.saves.durable_at is None:
            return shown
        return {"saved": f"{_age(time.monotonic() - self.saves.durable_at)} ago", **shown}


def _age(seconds: float) -> str:
    """An age in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
