"""What the observed loops of a trainer call: the events of a fit, in their order. See ``loops`` for the safe points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checkpointable.policy.clock import Clock
from checkpointable.policy.position import Ended

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.utilities import CombinedLoader


class Restoring:
    """Restores a run that resumes; does nothing for a new one, and this one for none.

    Attributes:
        resumes: Whether the run resumes from a checkpoint.
        is_starting: Whether it does, and its first epoch or batch since then has not begun yet.
        found: What the finders of the run have found, by attribute.
    """

    resumes = False
    is_starting = False
    found: Mapping[str, float] = {}

    def note_made(self, trainer: Trainer) -> Mapping[str, Any]:
        """Before a finder changes the numbers of optimizers and schedulers, or the run starts: note and return them."""
        return {}

    def epoch_of_loaders(self, trainer: Trainer, *, validation: bool) -> float:
        """The epoch in which the run has made the loaders that are about to be made; infinite: they are new here."""
        return math.inf

    def on_training_loaders(self, trainer: Trainer, loader: CombinedLoader) -> bool:
        """After the training loaders are made, before their iterators are; returns whether it restores their state."""
        return False

    def on_validation_loaders(self, trainer: Trainer, loader: CombinedLoader) -> None:
        """After the validation loaders are made."""


class Interrupt:
    """Whether Ctrl-C was ``pressed``, and shall end the training in order."""

    pressed = False


class Listener:
    """Hears the events of a fit, in the order in which they are listed here. This one does nothing.

    Attributes:
        resumes_after: What had ended when the checkpoint being resumed was saved. The loop sets it to ``None`` once the
            resumed epoch has begun.
        validates_first: Whether the batch that it was saved after still has to trigger its validation.
        trial: While a finder trains on trial: what hears in place of this one.
        clock: Of rank 0, it is told to all ranks before each batch.
    """

    restorer = Restoring()
    resumes_after: Ended | None = None
    validates_first = False
    trial: Listener | None = None
    interrupt = Interrupt()
    clock = Clock()

    @property
    def may_stop(self) -> bool:
        """Whether several ranks may stop before the next batch."""
        return True

    def on_optimizers_made(self, trainer: Trainer) -> None:
        """In a fit that resumes: before the states of optimizers and schedulers are restored."""

    def on_run_start(self, trainer: Trainer) -> None:
        """Before the fit loop looks whether anything is left to train. Lightning has restored what it restores."""

    def on_train_start(self, trainer: Trainer) -> None:
        """Before the first hook of training."""

    def before_first(self, trainer: Trainer, what: Ended) -> bool:
        """Before an epoch begins, and before its first batch is fetched; returns whether the run resumes right here."""
        return False

    def on_batch_start(self, trainer: Trainer) -> None:
        """Before each batch is fetched."""

    def on_batch_trained(self) -> None:
        """After each batch is trained, before the validation that it may trigger."""

    def on_validation_due(self, trainer: Trainer) -> None:
        """Before the validation that a batch triggers, and before all of its hooks."""

    def on_validation_batch_end(self, trainer: Trainer) -> None:
        """After each batch of it."""

    def on_validation_batches_over(self, trainer: Trainer) -> None:
        """After all of them, before the hooks of its end; and once more after those."""

    def on_validation_over(self) -> None:
        """After it, with all of its hooks."""

    def on_validation_failed(self, trainer: Trainer) -> None:
        """After a ``RuntimeError`` in it, such as that of a collective."""

    def on_batch_end(self, trainer: Trainer, *, terminating: bool) -> None:
        """The safe point after each batch. If ``terminating``, SIGTERM ends the training right here."""

    def on_epoch_ending(self, trainer: Trainer, *, early: bool) -> None:
        """After the last batch of an epoch, before the hooks of its end. If ``early``, the training stops inside it."""

    def on_epoch_end(self, trainer: Trainer, *, terminating: bool) -> None:
        """The safe point after each epoch. If ``terminating``, SIGTERM ends the training right here."""

    def on_train_end(self, trainer: Trainer) -> None:
        """After the last epoch, before the hooks of the training's end."""

    def on_run_end(self, trainer: Trainer) -> None:
        """After the fit loop has returned, also if nothing was left to train."""

    def on_run_failed(self) -> None:
        """When an exception leaves the fit loop, before any callback hears of it."""
