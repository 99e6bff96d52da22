"""The settings that make a run what it is, compared between the saved run and the script that resumes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from checkpointable._errors import ResumeError
from checkpointable.lightning_internals import callbacks as trainer_callbacks

_ARGUMENTS = (
    *("precision", "gradient_clip_val", "gradient_clip_algorithm", "val_check_interval", "check_val_every_n_epoch"),
    *("limit_train_batches", "limit_val_batches", "overfit_batches", "reload_dataloaders_every_n_epochs"),
)


def capture(trainer: Trainer) -> dict[str, Any]:
    """The trainer's arguments that decide how to train and when to validate, the optimizers and the schedulers.

    Not among them is how long to train (``max_epochs``, ``max_steps``, ``max_time``): it may grow.
    """
    found = {name: str(getattr(trainer, name)) for name in _ARGUMENTS}
    if trainer.gradient_clip_val is not None:
        found["gradient_clip_val"] = str(float(trainer.gradient_clip_val))  # 1 means 1.0 here, unlike in the others
    schedules = [it for it in trainer_callbacks.callbacks(trainer) if isinstance(it, GradientAccumulationScheduler)]
    found["accumulate_grad_batches"] = str(schedules[0].scheduling if schedules else trainer.accumulate_grad_batches)
    found["optimizers"] = ", ".join(type(optimizer).__name__ for optimizer in trainer.optimizers)
    configs = trainer.lr_scheduler_configs
    every = [f"{type(it.scheduler).__name__} every {it.frequency} {it.interval}" for it in configs]
    found["lr_schedulers"] = ", ".join(every)
    return found


def changed(trainer: Trainer, saved: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The settings that have changed: name, saved value, present value."""
    now = capture(trainer)
    for name, was in saved.items():
        if now.get(name, was) != was:
            yield name, was or "none", now[name] or "none"


def check_optimizers(trainer: Trainer, saved: Mapping[str, Any]) -> None:
    """Refuse optimizers of other classes: the saved state would make their first step fail with an obscure error.

    Raises:
        ResumeError: If the classes differ.
    """
    was, now = saved.get("optimizers"), capture(trainer)["optimizers"]
    if was and was != now:
        raise ResumeError(
            f"cannot resume from {trainer.ckpt_path}: it holds the state of {was}, and configure_optimizers gives"
            f" {now or 'none'}. Use the same optimizers again, or start a new run from the weights:"
            f" {type(trainer.lightning_module).__name__}.load_from_checkpoint(...)."
        )
