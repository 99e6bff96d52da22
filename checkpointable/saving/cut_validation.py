"""Cuts a validation short for a signal: it can last longer than a job may live after that.

The state before the validation is kept, and saved by ``last_state``. A resume runs the validation whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from checkpointable.lightning_internals import model_parallel, signals
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.listener import Listener
from checkpointable.resume.state import RunState
from checkpointable.saving.before_validation import BeforeValidation
from checkpointable.saving.progress import Progress
from checkpointable.saving.shared_stop import SharedStop

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class CutValidation:
    """The validation that is running, if a signal may cut it short.

    Attributes:
        before: The state before it; ``None`` if none is running, or a signal waits for the safe point after it.
        stop: What tells several ranks to cut it short.
    """

    def __init__(self) -> None:
        self.before: BeforeValidation | None = None
        self.stop: SharedStop | None = None
        self._hooks_swap: bool | None = None  # whether hooks of the user's have changed weights in one so far

    def prepare(
        self, trainer: Trainer, listener: Listener, progress: Progress, capture: Callable[..., RunState]
    ) -> None:
        """Before it: keep the state, by ``Session.state``. Collective.

        Several ranks do not stop inside an accumulation window, as a file holds the gradients of rank 0 alone.
        """
        self.over()
        alone = trainer.world_size == 1
        if model_parallel.parts_model(trainer) or not (alone or _rank_zero_can_save(trainer, progress)):
            return
        state = capture(trainer, progress, at_safe_point=True, weights_only=False)
        self.before = BeforeValidation(trainer, progress, state, swaps=self._hooks_swap)
        if alone:
            signals.end(trainer, signals.noted(trainer, listener))
        else:
            self.stop = SharedStop()

    def after_batch(self, trainer: Trainer, listener: Listener) -> None:
        """After a batch of it: cut it short, if a signal that shall end the training was noted."""
        if self.before is not None:
            self._hooks_swap = self.before.begin(trainer, self._hooks_swap)
            noted = signals.noted(trainer, listener)
            signals.end(trainer, noted if self.stop is None else self.stop.look(noted))

    def after_batches(self, trainer: Trainer, listener: Listener) -> None:
        """After its last batch: the last moment for that under several ranks. Collective."""
        if self.stop is not None:
            signals.end(trainer, self.stop.wait_for_all(lambda: signals.noted(trainer, listener)))
            self.over()

    def after_error(self, trainer: Trainer, listener: Listener) -> None:
        """After an error in it: end as the other ranks, if they have left because of a signal."""
        if self.stop is not None:
            signals.end(trainer, self.stop.look(signals.noted(trainer, listener)))

    def over(self) -> None:
        """From here on a signal waits for the safe point."""
        self.before = self.stop = None

    def __reduce__(self) -> tuple[type[CutValidation], tuple[()]]:  # for copies of a module: none of theirs runs
        return (CutValidation, ())


def _rank_zero_can_save(trainer: Trainer, progress: Progress) -> bool:
    """Whether it can without the other ranks: an optimizer whose state lies on all of them is gathered by all."""
    shared = torch.distributed.is_available() and torch.distributed.is_initialized()
    parted = any(hasattr(optimizer, "consolidate_state_dict") for optimizer in trainer.optimizers)
    return shared and not progress.in_window and internals.saves_whole_files(trainer) and not parted
