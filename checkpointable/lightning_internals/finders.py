"""Lightning's finders of a learning rate and of a batch size: they train on trial inside a fit, and undo the trial.

A trial is no part of the run: nothing of it is counted, saved or restored, and the file with which Lightning undoes it
is not one that the fit resumes from. A fit that resumes uses what the run has found, and tries nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals.callbacks import callbacks
from checkpointable.lightning_internals.listener import Listener, Restoring
from checkpointable.lightning_internals.loops import session_of
from checkpointable.lightning_internals.tree import Mixin, find, is_a, put_before
from checkpointable.policy.position import Ended

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
    from lightning.pytorch.utilities import CombinedLoader
else:  # at run time, the base is the class of the finder that is observed
    BatchSizeFinder = LearningRateFinder = object


def observe(trainer: Trainer) -> None:
    """Let the session know of the trials in this trainer. Doing it again changes nothing."""
    for callback in callbacks(trainer):
        if is_a(callback, "LearningRateFinder"):
            put_before(_ObservedRateFinder, callback)
        elif is_a(callback, "BatchSizeFinder"):
            put_before(_ObservedSizeFinder, callback)


def is_tuning(trainer: Trainer) -> bool:
    """Whether this fit is one of a ``Tuner``, which ends after the trial."""
    return any(is_a(it, "LearningRateFinder", "BatchSizeFinder") and it._early_exit for it in callbacks(trainer))


def found(trainer: Trainer) -> dict[str, float]:
    """The values of the attributes that the trainer's finders set, by name."""
    module = trainer.lightning_module
    names = [_name(trainer, callback) for callback in callbacks(trainer) if _is_finder(callback)]
    values = {name: find(trainer, "lightning_getattr")(module, name) for name in names if name is not None}
    return {name: value for name, value in values.items() if isinstance(value, (int, float))}


def tries_before(callback: Callback, ended: Ended | None) -> bool:
    """Whether a finder may try after what has ended here, before the next batch: a class of the user's own may."""
    hooks = ["on_train_batch_start", *(["on_train_epoch_start"] if ended == Ended.EPOCH else [])]
    base = find(callback, "Callback")
    return _is_finder(callback) and any(getattr(type(callback), hook) is not getattr(base, hook) for hook in hooks)


def _is_finder(callback: Callback) -> bool:
    return is_a(callback, "LearningRateFinder", "BatchSizeFinder")


def _name(trainer: Trainer, callback: Any) -> str | None:
    """The name of the attribute that a finder sets; ``None`` if it sets none."""
    if is_a(callback, "BatchSizeFinder"):
        return str(callback._batch_arg_name)
    if not callback._update_attr:
        return None
    return str(find(trainer, "_determine_lr_attr_name")(trainer.lightning_module, callback._attr_name))


def _restore_found(trainer: Trainer, callback: Callback) -> None:
    """In a fit that resumes: set the attribute to what the run has found, when the run has first found it."""
    name, values = _name(trainer, callback), session_of(trainer).restorer.found
    if name is not None and name in values:
        find(trainer, "lightning_setattr")(trainer.lightning_module, name, values[name])


class _ObservedRateFinder(Mixin, LearningRateFinder):
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _restore_found(trainer, self)
        super().on_fit_start(trainer, pl_module)

    def lr_find(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not session_of(trainer).restorer.is_starting:
            with _trial(trainer):
                super().lr_find(trainer, pl_module)


class _ObservedSizeFinder(Mixin, BatchSizeFinder):
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _restore_found(trainer, self)
        super().on_fit_start(trainer, pl_module)

    def scale_batch_size(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if session_of(trainer).restorer.is_starting:
            self.optimal_batch_size = find(trainer, "lightning_getattr")(pl_module, self._batch_arg_name)
            return
        with _trial(trainer):
            super().scale_batch_size(trainer, pl_module)


class _Trial(Listener):
    """Hears the events of a trial in place of the session: the positions in the data are those of the run that follows.

    Lightning makes the loaders of that run inside the trial, too.
    """

    def __init__(self, restorer: Restoring) -> None:
        self.restorer = _Tracking(restorer)


class _Tracking(Restoring):
    def __init__(self, restorer: Restoring) -> None:
        self.restorer = restorer

    def on_training_loaders(self, trainer: Trainer, loader: CombinedLoader) -> bool:
        return self.restorer.on_training_loaders(trainer, loader)

    def on_validation_loaders(self, trainer: Trainer, loader: CombinedLoader) -> None:
        self.restorer.on_validation_loaders(trainer, loader)


@contextlib.contextmanager
def _trial(trainer: Trainer) -> Iterator[None]:
    """Keep a trial from the session, and the file that undoes it from the rest of the fit."""
    listener = session_of(trainer)
    listener.restorer.note_made(trainer)
    connector = trainer._checkpoint_connector
    before = connector._ckpt_path, connector._loaded_checkpoint
    listener.trial = _Trial(listener.restorer)
    try:
        yield
    finally:
        listener.trial = None
        connector._ckpt_path, connector._loaded_checkpoint = before
