"""The ways to the library: a module of ours or the callback, in either of Lightning's trees."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import torch

import checkpointable
import checkpointable.pl

LIGHTNING, SECOND = "lightning.pytorch", "pytorch_lightning"
DOORS = ("module", "callback", f"module of {SECOND}", f"callback of {SECOND}")


def tree_of(door: str) -> ModuleType:
    """The package whose trainer is used."""
    return import_module(SECOND if door.endswith(SECOND) else LIGHTNING)


def is_callback(door: str) -> bool:
    return door.startswith("callback")


def opened(door: str, steps: type) -> type[Any]:
    """The class of a module with these steps, ``compute_loss`` among them."""
    if not is_callback(door):
        home = checkpointable.pl if door.endswith(SECOND) else checkpointable
        return type(steps.__name__, (steps, home.CheckpointingModule), {})
    return type(steps.__name__, (steps, OwnSteps, tree_of(door).LightningModule), {})


class OwnSteps:
    """What somebody's module does that knows nothing of this library."""

    def __init__(self, **options: Any) -> None:
        super().__init__()

    @property
    def best_val_loss(self) -> float:
        return self.trainer.checkpoint_callback.best_val_loss

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.compute_loss(batch, batch_idx)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.compute_loss(batch, batch_idx), batch_size=4)
