"""How far a training has come, in batches and optimizer steps, and whether gradients wait for the rest of a window.

Lightning counts a step for every optimizer, and none for one that is stepped past its wrappers. So in manual
optimisation a step is a batch in which at least one optimizer stepped, and a batch in which none did is in a window.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lightning.pytorch import Trainer

from checkpointable import _lightning
from checkpointable.policy.position import Position


class Steps:
    """Counts for one run."""

    def __init__(self) -> None:
        self._stepped = False
        self.stepped = (False, False)  # ever, and in the last batch

    def listen(self, trainer: Trainer) -> None:
        """In manual optimisation: hear of every step, also of optimizers without Lightning's wrapper."""
        if not trainer.lightning_module.automatic_optimization:
            for optimizer in trainer.strategy.optimizers:
                optimizer.register_step_post_hook(self._note_step)

    def count(self, trainer: Trainer, before: Position) -> Position:
        """Where the training stands after a batch."""
        now = _lightning.counted(trainer)
        if trainer.lightning_module.automatic_optimization:
            return now
        ever = self.stepped[0] or self._stepped
        stepped, self._stepped = self._stepped or not ever, False
        self.stepped = ever, stepped
        return replace(now, step=before.step + stepped)

    def in_window(self, trainer: Trainer) -> bool:
        """Whether gradients are being accumulated, and the next batch adds to them."""
        if trainer.lightning_module.automatic_optimization:
            return _lightning.inside_window(trainer)
        return self.stepped == (True, False)

    def _note_step(self, *_: Any) -> None:
        self._stepped = True
