"""What the observed loops tell the session of a fit, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from checkpointable.policy.position import Ended

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.utilities import CombinedLoader


class Listener(Protocol):
    """Hears the events of a fit, in the order in which they are listed here.

    Attributes:
        resumes_after: What had ended when the checkpoint being resumed was saved. The loop sets it to ``None`` once the
            resumed epoch has begun.
    """

    resumes_after: Ended | None

    def on_run_start(self, trainer: Trainer) -> None:
        """Before the fit loop looks whether anything is left to train."""

    def on_training_loaders(self, trainer: Trainer, loader: CombinedLoader) -> bool:
        """After the training loaders are made, before their iterators are; returns whether it restores their state."""

    def on_validation_loaders(self, trainer: Trainer, loader: CombinedLoader) -> None:
        """After the validation loaders are made."""

    def on_train_start(self, trainer: Trainer) -> None:
        """Before the first hook of training."""

    def before_first(self, trainer: Trainer, point: Ended) -> bool:
        """Before an epoch begins, where a run saved after an ``EPOCH`` resumes, and before its first batch is fetched,
        where one saved after a ``BATCH`` does; returns whether the run resumes right here."""

    def on_batch_start(self) -> None:
        """Before each batch is fetched."""

    def on_batch_trained(self, trainer: Trainer) -> None:
        """After each batch is trained, before the validation that it may trigger."""

    def on_batch_end(self, trainer: Trainer, *, terminating: bool) -> None:
        """The safe point after each batch. If ``terminating``, SIGTERM ends the training right here."""

    def on_epoch_ending(self, trainer: Trainer, *, early: bool) -> None:
        """After the last batch of an epoch, before the hooks of its end. If ``early``, the training stops inside it."""

    def on_epoch_end(self, trainer: Trainer, *, terminating: bool) -> None:
        """The safe point after each epoch. If ``terminating``, SIGTERM ends the training right here."""

    def on_train_end(self, trainer: Trainer) -> None:
        """After the last epoch, before the hooks of the training's end."""

    def on_run_end(self, trainer: Trainer) -> None:
        """After the fit loop has returned, also where nothing was left to train."""

    def on_run_failed(self) -> None:
        """When an exception leaves the fit loop, before any callback hears of it."""
