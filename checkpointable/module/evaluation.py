"""Logs the losses: for each step in training, as means over samples and ranks in validation and test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torchmetrics import MeanMetric

from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.tree import find
from checkpointable.module.compiling import not_compiled

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


class Means:
    """Running means of one module, weighted by batch size. They are no submodules, so its ``state_dict`` lacks them."""

    def __init__(self) -> None:
        self._means: dict[tuple[str, int | None], MeanMetric] = {}

    def add(self, name: str, loader: int | None, value: torch.Tensor | float, weight: int) -> MeanMetric:
        """Add one batch to the mean of a quantity, for one loader or (``None``) over all of them."""
        mean = self._means.get((name, loader))
        if mean is None:  # nan_strategy="disable" would ignore the weights (torchmetrics 1.9)
            mean = self._means[name, loader] = MeanMetric(nan_strategy=math.nan)
        if isinstance(value, torch.Tensor):
            value = value.detach()
            if mean.device != value.device:
                mean.to(value.device)
        mean.update(value, weight)
        return mean

    def overall(self) -> dict[str, MeanMetric]:
        """The means over all loaders that have batches in them."""
        return {name: mean for (name, loader), mean in self._means.items() if loader is None and mean.update_called}

    def reset(self) -> None:
        """Empty every mean."""
        for mean in self._means.values():
            mean.reset()


@not_compiled
def log_training(module: LightningModule, losses: Mapping[str, torch.Tensor | float], batch: Any) -> None:
    """Log ``train_<name>``, for the step and as the epoch's mean."""
    trainer = internals.logging_trainer(module)
    if trainer is None:
        return
    samples, several_ranks = _batch_size(module, batch), trainer.world_size > 1
    for name, value in losses.items():
        module.log(
            f"train_{name}",
            value,
            prog_bar=name == "loss",
            on_step=True,
            on_epoch=True,
            sync_dist=several_ranks,
            batch_size=samples,
        )


@not_compiled
def log_evaluation(
    module: Any, losses: Mapping[str, torch.Tensor | float], stage: str, batch: Any, batch_idx: int, loader: int
) -> None:
    """Add a batch to the module's means, and log that of its loader, under the name that Lightning gives it."""
    means: Means = module._checkpointing_means
    trainer = internals.logging_trainer(module)
    if batch_idx == 0 and loader == 0:
        means.reset()
    samples = _batch_size(module, batch)
    several = stage == "val" and trainer is not None and internals.evaluates_several_loaders(trainer)
    for name, value in ((f"{stage}_{name}", value) for name, value in losses.items()):
        mean = means.add(name, loader, value, samples)
        if several:
            means.add(name, None, value, samples)
        if trainer is not None:
            module.log(
                name,
                mean,
                prog_bar=name == "val_loss",
                on_step=False,
                on_epoch=True,
                batch_size=samples,
                metric_attribute="compute_loss",
            )


def log_overall(module: Any) -> None:
    """With several loaders: also log the mean over all of them, so that there is one quantity to monitor."""
    if internals.logging_trainer(module) is not None:
        for name, mean in module._checkpointing_means.overall().items():
            # the value is equal on all ranks; reducing it by "max" does not round it, as "mean" would
            module.log(name, mean.compute(), prog_bar=name == "val_loss", sync_dist=True, reduce_fx="max")


def _batch_size(module: LightningModule, batch: Any) -> int:
    """Samples in a batch, as Lightning finds them; 1 where it finds none."""
    try:
        samples: int = find(module, "extract_batch_size")(batch)
        return samples
    except find(module, "MisconfigurationException"):
        return 1
