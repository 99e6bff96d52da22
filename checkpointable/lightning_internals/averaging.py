"""Which copy of the weights the ``state_dict`` of a checkpoint is: the trained one, or an average of it.

``WeightAveraging`` (``EMAWeightAveraging`` too) puts its average there when it is asked to save. It also swaps both
copies for each validation. ``StochasticWeightAveraging`` puts its average in the module when the training ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor

from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.callbacks import callbacks
from checkpointable.lightning_internals.tree import is_a

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

AVERAGED, CURRENT = "averaged", "current"
_NOTED_LATE = "_accumulate_grad_batches"


def which_copy(trainer: Trainer, checkpoint: dict[str, Any]) -> str | None:
    """``"averaged"``, ``"current"`` for the weights that are trained, or ``None`` if nothing shows which it is.

    Lightning does not ask callbacks where a file holds weights only, which then had others than its validation. So
    the average of a ``WeightAveraging`` is put there.
    """
    module = trainer.lightning_module
    for callback in callbacks(trainer):
        if is_a(callback, "WeightAveraging") and callback._average_model is not None:
            if trainer.validating or trainer.sanity_checking:
                return None  # the copies may be swapped
            if "current_model_state" not in checkpoint:
                asked = {"state_dict": checkpoint["state_dict"]}
                callback.on_save_checkpoint(trainer, module, asked)
                checkpoint["state_dict"] = asked["state_dict"]
            return AVERAGED
        if is_a(callback, "StochasticWeightAveraging") and _has_average(module, callback):
            return AVERAGED
    return CURRENT if _are_own(checkpoint["state_dict"], internals.module_state(trainer)) else None


def swap_back(trainer: Trainer) -> None:
    """Undo the swap of both copies that each ``WeightAveraging`` has made for the validation that is cut short."""
    for callback in callbacks(trainer):
        if is_a(callback, "WeightAveraging") and callback._average_model is not None:
            callback._swap_models(trainer.lightning_module)


def prepare_for_end(trainer: Trainer) -> None:
    """Let ``StochasticWeightAveraging`` end a run that was trained in another process.

    With batch norm, the hook of its end reads what it notes only in the epoch before.
    """
    for callback in callbacks(trainer):
        if is_a(callback, "StochasticWeightAveraging"):
            vars(callback).setdefault(_NOTED_LATE, trainer.accumulate_grad_batches)


def _has_average(module: LightningModule, callback: Any) -> bool:
    """Whether the weights of the module are the average of that callback."""
    if not callback.n_averaged:
        return False
    averages, weights = list(callback._average_model.parameters()), list(module.parameters())
    pairs = zip(averages, weights, strict=False)
    return len(averages) == len(weights) and all(torch.equal(one, other.to(one.device)) for one, other in pairs)


def _are_own(saved: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether these are the module's own tensors. Hooks and callbacks of the user may save any others."""
    return all(name in own and _place(value) == _place(own[name]) for name, value in saved.items())


def _place(value: Any) -> tuple[int, int] | None:
    """The memory of a tensor, and where in it the tensor begins; ``None`` for what has no such place."""
    if isinstance(value, DTensor):
        value = value.to_local()
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return None
    return value.untyped_storage().data_ptr(), int(value.storage_offset())
