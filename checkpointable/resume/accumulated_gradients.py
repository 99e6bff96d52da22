"""The gradients of an open accumulation window."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from checkpointable.lightning_internals import callbacks as trainer_callbacks


def collect(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The gradients accumulated so far, by parameter name."""
    return {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}


def restore(module: torch.nn.Module, gradients: Mapping[str, torch.Tensor]) -> None:
    """Restore them, on the devices of their parameters."""
    for name, weight in module.named_parameters():
        if name in gradients:
            weight.grad = gradients[name].to(device=weight.device, dtype=weight.dtype)


def outlive_batches(trainer: Trainer) -> bool:
    """Whether gradients may be needed after a batch outside an accumulation window: user code zeroes or reads them."""
    module = trainer.lightning_module
    hooks = ("optimizer_zero_grad", "on_before_zero_grad")
    owners = [(module, hooks), *((callback, hooks[1:]) for callback in trainer_callbacks.callbacks(trainer))]
    overridden = any(is_overridden(hook, owner) for owner, of_owner in owners for hook in of_owner)
    return not module.automatic_optimization or overridden
