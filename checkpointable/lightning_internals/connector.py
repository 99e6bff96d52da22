"""The trainer's checkpoint connector, which chooses, loads and makes checkpoints.

It lets a keeper add to checkpoints and read them, and another decide which file a run resumes from.

A module of ours does both in its hooks. A callback has no such hooks: Lightning calls its ``on_save_checkpoint`` in
the middle of making a checkpoint, and not at all for one that holds weights only.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from checkpointable.lightning_internals.tree import Mixin, find, put_before

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
else:  # at run time, the base is the class of the connector that is observed
    _CheckpointConnector = object


class Keeper(Protocol):
    """Has a state that is in every checkpoint of a trainer."""

    def add_state(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """After a checkpoint is made."""

    def take_state(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """After a checkpoint is loaded, before anything is restored from it."""


def keep(trainer: Trainer, keeper: Keeper | None) -> None:
    """Let this keeper, or none, see the checkpoints that the trainer makes and loads, in place of an earlier one."""
    put_before(_ObservedConnector, trainer._checkpoint_connector)
    trainer._checkpoint_connector.keeper = keeper  # type: ignore[attr-defined]  # it is an observed one now


Load = Callable[["Trainer", "str | None", Callable[["str | None"], None]], None]


def load_with(trainer: Trainer, load: Load | None) -> None:
    """Let ``load`` read the checkpoint of the next run: it gets the path that the run was given, and what reads one."""
    put_before(_ObservedConnector, trainer._checkpoint_connector)
    trainer._checkpoint_connector.load = load  # type: ignore[attr-defined]  # it is an observed one now


def given_path(trainer: Trainer) -> str | None:
    """The ``ckpt_path`` that a fit was given. Before the ``setup`` hooks, only a function that runs has it."""
    frame, code = inspect.currentframe(), find(trainer, "Trainer")._run.__code__
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    given = None if frame is None else frame.f_locals["ckpt_path"]
    return None if given is None else os.fspath(given)


class _ObservedConnector(Mixin, _CheckpointConnector):
    keeper: Keeper | None = None
    load: Load | None = None

    def resume_start(self, checkpoint_path: Any = None, weights_only: bool | None = None) -> None:
        load, self.load = self.load, None
        read = partial(super().resume_start, weights_only=weights_only)
        if load is None:
            read(checkpoint_path)
        else:
            load(self.trainer, checkpoint_path, read)

    def dump_checkpoint(self, weights_only: bool | None = None) -> dict[str, Any]:
        checkpoint: dict[str, Any] = super().dump_checkpoint(weights_only)
        if self.keeper is not None:
            self.keeper.add_state(self.trainer, checkpoint)
        return checkpoint

    def restore_model(self) -> None:
        if self.keeper is not None and self._loaded_checkpoint:
            self.keeper.take_state(self.trainer, self._loaded_checkpoint)
        super().restore_model()
