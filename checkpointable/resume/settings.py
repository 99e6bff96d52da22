"""How a run is trained: what a resumed script may have changed, so that it is not the same run any more."""

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
    """The trainer's arguments that decide what a batch does and when a validation comes, and what takes the steps.

    How long to train (``max_epochs``, ``max_steps``, ``max_time``) is none of them: it may grow.
    """
    found = {name: str(getattr(trainer, name)) for name in _ARGUMENTS}
    if trainer.gradient_clip_val is not None:
        found["gradient_clip_val"] = str(float(trainer.gradient_clip_val))  # 1 is 1.0; for the others it is not
    schedules = [it for it in trainer_callbacks.callbacks(trainer) if isinstance(it, GradientAccumulationScheduler)]
    found["accumulate_grad_batches"] = str(schedules[0].scheduling if schedules else trainer.accumulate_grad_batches)
    found["optimizers"] = ", ".join(type(optimizer).__name__ for optimizer in trainer.optimizers)
    configs = trainer.lr_scheduler_configs
    every = [f"{type(it.scheduler).__name__} every {it.frequency} {it.interval}" for it in configs]
    found["lr_schedulers"] = ", ".join(every)
    return found


def changed(trainer: Trainer, saved: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What is not as it was: its name, how it was, and how it is now."""
    now = capture(trainer)
    for name, was in saved.items():
        if now.get(name, was) != was:
            yield name, was or "none", now[name] or "none"


def check_optimizers(trainer: Trainer, saved: Mapping[str, Any]) -> None:
    """Refuse optimizers of another class: their state would not fit, and fail in the first step without a word of why.

    Raises:
        ResumeError: If they are.
    """
    was, now = saved.get("optimizers"), capture(trainer)["optimizers"]
    if was and was != now:
        raise ResumeError(
            f"cannot go on from {trainer.ckpt_path}: it holds the state of {was}, and"
            f" configure_optimizers gives {now or 'none'}. Give it the same optimizers again, or start anew from the"
            f" weights: {type(trainer.lightning_module).__name__}.load_from_checkpoint(...)."
        )
