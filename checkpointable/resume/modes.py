"""What hooks of an epoch's start set up, and a resume inside the epoch does not call again: frozen weights, modes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from checkpointable import _trainer_callbacks


def capture(module: torch.nn.Module) -> dict[str, Any]:
    """The parameters that take no gradient, and the modules in evaluation mode, by name."""
    return {
        "frozen": [name for name, weight in module.named_parameters() if not weight.requires_grad],
        "evaluating": [name for name, part in module.named_modules() if not part.training],
    }


def restore(module: torch.nn.Module, saved: Mapping[str, Any]) -> None:
    """Put all of them into these modes."""
    frozen, evaluating = set(saved["frozen"]), set(saved["evaluating"])
    for name, weight in module.named_parameters():
        if weight.is_floating_point() or weight.is_complex():
            weight.requires_grad = name not in frozen
    for name, part in module.named_modules():
        part.training = name not in evaluating


def restore_accumulation(trainer: Trainer) -> None:
    """Let Lightning's scheduler of accumulation say again what holds in this epoch."""
    for callback in _trainer_callbacks.callbacks(trainer):
        if isinstance(callback, GradientAccumulationScheduler):
            callback.on_train_epoch_start(trainer)
