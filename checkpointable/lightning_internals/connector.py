"""The trainer's checkpoint connector, which makes and loads checkpoints: it lets a keeper add to them and read them.

A module of ours does both in its hooks. A callback has no such hooks: Lightning calls its ``on_save_checkpoint`` in
the middle of making a checkpoint, and not at all for one that holds weights only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from checkpointable.lightning_internals.tree import Mixin, put_before

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


def observe(trainer: Trainer, keeper: Keeper) -> None:
    """Let this keeper see the checkpoints that the trainer makes and loads, in the place of an earlier one."""
    put_before(_ObservedConnector, trainer._checkpoint_connector)
    trainer._checkpoint_connector.keeper = keeper  # type: ignore[attr-defined]  # it is an observed one now


def release(trainer: Trainer) -> None:
    """Let no keeper see them any more."""
    vars(trainer._checkpoint_connector).pop("keeper", None)


class _ObservedConnector(Mixin, _CheckpointConnector):
    keeper: Keeper | None = None

    def dump_checkpoint(self, weights_only: bool | None = None) -> dict[str, Any]:
        checkpoint: dict[str, Any] = super().dump_checkpoint(weights_only)
        if self.keeper is not None:
            self.keeper.add_state(self.trainer, checkpoint)
        return checkpoint

    def restore_model(self) -> None:
        if self.keeper is not None and self._loaded_checkpoint:
            self.keeper.take_state(self.trainer, self._loaded_checkpoint)
        super().restore_model()
