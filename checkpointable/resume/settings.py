"""The settings of a training that a resume compares with those in the file."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.tree import is_a
from checkpointable.resume.parameter_names import Groups

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_ARGUMENTS = (
    *("precision", "gradient_clip_val", "gradient_clip_algorithm", "val_check_interval", "check_val_every_n_epoch"),
    *("limit_train_batches", "limit_val_batches", "overfit_batches", "reload_dataloaders_every_n_epochs"),
)


def settings_of(trainer: Trainer, parameters: Sequence[Groups]) -> dict[str, Any]:
    """The trainer's arguments that decide how to train and when to validate, the optimizers and the schedulers.

    Not among them is how long to train (``max_epochs``, ``max_steps``, ``max_time``): it may grow.

    Args:
        trainer: Set up for a fit.
        parameters: Those of the optimizers; see ``parameter_names.names_of``.
    """
    found = {name: str(getattr(trainer, name)) for name in _ARGUMENTS}
    if trainer.gradient_clip_val is not None:
        found["gradient_clip_val"] = str(float(trainer.gradient_clip_val))  # 1 means 1.0 here, unlike in the others
    schedules = [it for it in trainer_callbacks.callbacks(trainer) if is_a(it, "GradientAccumulationScheduler")]
    found["accumulate_grad_batches"] = str(schedules[0].scheduling if schedules else trainer.accumulate_grad_batches)
    found["validation loaders"] = "given" if internals.has_val_loader(trainer) else ""
    found["optimizers"] = ", ".join(type(optimizer).__name__ for optimizer in trainer.optimizers)
    found["optimizer_parameters"] = _order_of(parameters)
    configs = trainer.lr_scheduler_configs
    every = [f"{type(it.scheduler).__name__} every {it.frequency} {it.interval}" for it in configs]
    found["lr_schedulers"] = ", ".join(every)
    return found


def _order_of(parameters: Sequence[Groups]) -> str:
    """How many parameters the optimizers have, and a digest of their names: optimizers are restored by this order."""
    ordered = [name for groups in parameters for group in groups for name, _ in group]
    return f"{len(ordered)} in order {sha256(repr(ordered).encode()).hexdigest()[:8]}"
