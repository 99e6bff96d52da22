"""What Lightning's checkpoint leaves out of a module: frozen parameters, evaluation modes and accumulated gradients.

Hooks set the modes at an epoch's start, and a resume inside the epoch calls none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from lightning_utilities.core.rank_zero import rank_zero_info

from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import model_parallel
from checkpointable.lightning_internals.tree import find, is_a

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


def capture_modes(module: LightningModule) -> dict[str, list[str]]:
    """The names of the parameters that require no gradient, and of the modules in evaluation mode.

    The latter are left out during a validation, when other callbacks may save: all modules are in evaluation mode then.
    """
    found = {"frozen": [name for name, weight in module.named_parameters() if not weight.requires_grad]}
    if not module.trainer.validating:
        found["evaluating"] = [name for name, part in module.named_modules() if not part.training]
    return found


def restore_modes(
    module: LightningModule, saved: Mapping[str, Sequence[str]], new: frozenset[str] = frozenset()
) -> None:
    """Set all parameters and modules to these modes; ``new`` parameters stay as they are, unless named as frozen."""
    frozen, evaluating = set(saved["frozen"]), set(saved.get("evaluating", ()))
    for name, weight in module.named_parameters():
        if (weight.is_floating_point() or weight.is_complex()) and (name not in new or name in frozen):
            weight.requires_grad = name not in frozen
    for name, part in module.named_modules() if "evaluating" in saved else ():
        part.training = name not in evaluating


def log_differences(initial: Mapping[str, Sequence[str]], saved: Mapping[str, Sequence[str]]) -> None:
    """Log which modes, before any hook, the script sets differently from the saved run: the saved ones are restored."""
    for mode in saved.keys() & initial.keys():
        was, now = set(saved[mode]), set(initial[mode])
        for words, names in ((mode, was - now), (f"not {mode}", now - was)):
            if names:
                first, *others = sorted(names)
                more = f" and {len(others)} more" if others else ""
                rank_zero_info(
                    f"checkpointable: {words}, as in the checkpoint and unlike in this script: {first!r}{more}"
                )


def restore_accumulation(trainer: Trainer) -> None:
    """Set ``accumulate_grad_batches`` as the user's ``GradientAccumulationScheduler`` sets it for this epoch."""
    for callback in trainer_callbacks.callbacks(trainer):
        if is_a(callback, "GradientAccumulationScheduler"):
            callback.on_train_epoch_start(trainer)


def capture_gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The gradients accumulated so far, by parameter name. Collective for those that lie in parts on the ranks."""
    return {
        name: model_parallel.whole(weight.grad) for name, weight in module.named_parameters() if weight.grad is not None
    }


def restore_gradients(module: torch.nn.Module, gradients: Mapping[str, torch.Tensor]) -> None:
    """Restore them, on the devices of their parameters."""
    for name, weight in module.named_parameters():
        if name in gradients and gradients[name].shape == weight.shape:
            saved = gradients[name].to(device=weight.device, dtype=weight.dtype)
            weight.grad = model_parallel.parted_like(saved, weight)


def gradients_outlive_batches(trainer: Trainer) -> bool:
    """Whether gradients may be needed after a batch outside an accumulation window: user code zeroes or reads them.

    Collective where they lie in parts on the ranks, as then they are captured together, and callbacks can differ.
    """
    module = trainer.lightning_module
    owners = (module, *trainer_callbacks.callbacks(trainer))
    hooks = [("optimizer_zero_grad", module), *(("on_before_zero_grad", owner) for owner in owners)]
    needed = not module.automatic_optimization or any(_is_overridden(hook, owner) for hook, owner in hooks)
    if model_parallel.parts_model(trainer):
        return not trainer.strategy.reduce_boolean_decision(not needed)
    return needed


def _is_overridden(hook: str, owner: object) -> bool:
    overridden: bool = find(owner, "is_overridden")(hook, owner)
    return overridden
