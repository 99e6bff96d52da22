"""The trainer's list of callbacks and its order, and the ``ModelCheckpoint`` that Lightning adds by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals import model_parallel
from checkpointable.lightning_internals.tree import find, is_a

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

_IMPLICIT = "_checkpointing_implicit"


class _HearsOfModule:
    """The attribute ``log`` of a callback that hears of the module before the loggers are opened.

    Lightning sets it to the module's method, right after the module's ``configure_callbacks``. No hook is as early.
    """

    def __get__(self, callback: Any, owner: Any) -> Any:
        if callback is None or "log" not in vars(callback):
            raise AttributeError("log")
        return vars(callback)["log"]

    def __set__(self, callback: Any, log: Any) -> None:
        vars(callback)["log"] = log
        callback.on_module_known(log.__self__)


class EarlyCallback:
    """A callback that hears of the module before the loggers are opened."""

    log = _HearsOfModule()

    def on_module_known(self, module: LightningModule) -> None:
        """The trainer is set up for this module."""


def callbacks(trainer: Trainer) -> list[Any]:
    """The trainer's callbacks. (Lightning sets the attribute where type checkers don't see it.)"""
    return list(trainer.callbacks)  # type: ignore[attr-defined]


def of_session(trainer: Trainer, session: object) -> Any:
    """Our callback for a session, if it is attached now: not in a dry run, nor in a tuner's trial. Else ``None``."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]  # set where mypy does not look
        return None
    return next((it for it in callbacks(trainer) if getattr(it, "session", None) is session), None)


def open_late(trainer: Trainer, session: object) -> None:
    """Let our callback look into its directory, if the strategy restores a run only after ``on_fit_start``."""
    ours = of_session(trainer, session)
    if ours is not None and model_parallel.parts_model(trainer):
        ours.open(trainer)


def ask_to_save(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Let the callbacks add to a checkpoint, and change what is in it, as they do whenever one is made."""
    for callback in callbacks(trainer):
        callback.on_save_checkpoint(trainer, trainer.lightning_module, checkpoint)


def detach(trainer: Trainer, callback: Callback) -> None:
    """Remove a callback. The list is a new one, since Lightning may be iterating over the old one."""
    trainer.callbacks = [other for other in callbacks(trainer) if other is not callback]  # type: ignore[attr-defined]


@contextlib.contextmanager
def in_place(trainer: Trainer) -> Iterator[None]:
    """Change the very list that Lightning is iterating over, so that what is attached is set up in the same pass.

    Nothing may be detached that comes before the present callback.
    """
    listed = trainer.callbacks  # type: ignore[attr-defined]
    yield
    listed[:] = callbacks(trainer)
    trainer.callbacks = listed  # type: ignore[attr-defined]


def attach(trainer: Trainer, callback: Callback, *, first_checkpoint: bool = False) -> None:
    """Add a callback in Lightning's order: checkpoints come last, and first among them if ``first_checkpoint``."""
    others = [other for other in callbacks(trainer) if other is not callback]
    place = len(others)
    if first_checkpoint:
        place = next((i for i, other in enumerate(others) if is_a(other, "Checkpoint")), place)
    others.insert(place, callback)
    ordered = trainer._callback_connector._reorder_callbacks(others)
    trainer.callbacks = ordered  # type: ignore[attr-defined]


def take_implicit_checkpoint(trainer: Trainer) -> ModelCheckpoint | None:
    """Detach and return the ``ModelCheckpoint`` that ``mark_implicit_checkpoint`` has marked."""
    implicit: ModelCheckpoint | None = next((it for it in callbacks(trainer) if getattr(it, _IMPLICIT, False)), None)
    if implicit is not None:
        detach(trainer, implicit)
    return implicit


def mark_implicit_checkpoint(trainer: Trainer) -> None:
    """Mark the ``ModelCheckpoint`` that Lightning added by itself, as long as it is as when it was made.

    Lightning gives every callback the module's ``log`` and ``log_dict`` before it sets up the first.
    """
    default = find(trainer, "ModelCheckpoint")()
    for callback in callbacks(trainer):
        attributes = {name: value for name, value in vars(callback).items() if name not in ("log", "log_dict")}
        if type(callback) is type(default) and attributes == vars(default):
            setattr(callback, _IMPLICIT, True)


def forget_implicit_checkpoint(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Drop the state of a ``ModelCheckpoint`` with default settings, else Lightning asks the user to add one."""
    blank = find(trainer, "ModelCheckpoint")().state_key
    if all(callback.state_key != blank for callback in callbacks(trainer)):
        checkpoint.get("callbacks", {}).pop(blank, None)
