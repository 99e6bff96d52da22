"""What hooks of an epoch's start set up, and a resume inside the epoch does not call again: frozen weights, modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from checkpointable.lightning_internals import callbacks as trainer_callbacks


def capture(module: LightningModule) -> dict[str, list[str]]:
    """The parameters that take no gradient, and the modules in evaluation mode, by name.

    Not the latter while a validation runs, in which other callbacks save: all are, and it is not how they train.
    """
    found = {"frozen": [name for name, weight in module.named_parameters() if not weight.requires_grad]}
    if not module.trainer.validating:
        found["evaluating"] = [name for name, part in module.named_modules() if not part.training]
    return found


def restore(module: LightningModule, saved: Mapping[str, Sequence[str]]) -> None:
    """Put all of them into these modes."""
    frozen, evaluating = set(saved["frozen"]), set(saved.get("evaluating", ()))
    for name, weight in module.named_parameters():
        if weight.is_floating_point() or weight.is_complex():
            weight.requires_grad = name not in frozen
    for name, part in module.named_modules() if "evaluating" in saved else ():
        part.training = name not in evaluating


def log_differences(initial: Mapping[str, Sequence[str]], saved: Mapping[str, Sequence[str]]) -> None:
    """Say in what a script makes the module in other modes than the one before did: it may mean it, and not get it.

    Args:
        initial: The modes before a fit, and any hook of it, has begun.
        saved: The same of the run that is taken up.
    """
    for mode in saved.keys() & initial.keys():
        was, now = set(saved[mode]), set(initial[mode])
        for words, names in ((mode, was - now), (f"not {mode}", now - was)):
            if names:
                first, *others = sorted(names)
                more = f" and {len(others)} more" if others else ""
                rank_zero_info(f"checkpointable: {words}, as when the checkpoint was taken: {first!r}{more}")


def restore_accumulation(trainer: Trainer) -> None:
    """Let Lightning's scheduler of accumulation say again what holds in this epoch."""
    for callback in trainer_callbacks.callbacks(trainer):
        if isinstance(callback, GradientAccumulationScheduler):
            callback.on_train_epoch_start(trainer)
