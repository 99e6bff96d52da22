"""The trainer's list of callbacks: who is in it, and in which order. As private as ``_lightning``'s seams."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

_IMPLICIT = "_checkpointing_implicit"
_CHECKPOINT_SETTINGS = (
    *("dirpath", "filename", "monitor", "verbose", "save_last", "save_top_k", "save_weights_only", "mode"),
    *("save_on_exception", "auto_insert_metric_name", "state_key"),
    *("_save_on_train_epoch_end", "_enable_version_counter"),
)


def callbacks(trainer: Trainer) -> list[Callback]:
    """The trainer's callbacks. (Lightning sets the attribute where type checkers do not see it.)"""
    attached: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return attached


def detach(trainer: Trainer, callback: Callback) -> None:
    """Take a callback out. The list is a new one: Lightning may be going through the old."""
    trainer.callbacks = [other for other in callbacks(trainer) if other is not callback]  # type: ignore[attr-defined]


def attach(trainer: Trainer, callback: Callback, *, first_checkpoint: bool = False) -> None:
    """Put a callback where Lightning's order wants it: checkpoints last, ours the first of them."""
    others = [other for other in callbacks(trainer) if other is not callback]
    place = len(others)
    if first_checkpoint:
        place = next((i for i, other in enumerate(others) if isinstance(other, Checkpoint)), place)
    others.insert(place, callback)
    ordered = trainer._callback_connector._reorder_callbacks(others)
    trainer.callbacks = ordered  # type: ignore[attr-defined]


def take_implicit_checkpoint(trainer: Trainer) -> ModelCheckpoint | None:
    """Detach the ``ModelCheckpoint`` that Lightning added by itself; one with any setting of its own stays."""
    mark_implicit_checkpoint(trainer)
    for callback in callbacks(trainer):
        if isinstance(callback, ModelCheckpoint) and getattr(callback, _IMPLICIT, False):
            detach(trainer, callback)
            return callback
    return None


def mark_implicit_checkpoint(trainer: Trainer) -> None:
    """Remember which ``ModelCheckpoint`` Lightning added by itself; once it is set up, it has settings, too."""
    blank = _settings(ModelCheckpoint())
    for callback in callbacks(trainer):
        if type(callback) is ModelCheckpoint and _settings(callback) == blank:
            setattr(callback, _IMPLICIT, True)


def forget_implicit_checkpoint(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Drop the state of a ``ModelCheckpoint`` with default settings, or Lightning asks the user to add one."""
    blank = ModelCheckpoint().state_key
    if all(callback.state_key != blank for callback in callbacks(trainer)):
        checkpoint.get("callbacks", {}).pop(blank, None)


def _settings(callback: ModelCheckpoint) -> dict[str, Any]:
    return {name: getattr(callback, name) for name in _CHECKPOINT_SETTINGS}
