"""Steps and an optimizer for a module of which only ``compute_loss`` has to be written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from checkpointable._errors import PolicyError
from checkpointable.lightning_internals import trainer as internals
from checkpointable.module.compiling import compiled_inside
from checkpointable.module.evaluation import Means, log_evaluation, log_overall, log_training
from checkpointable.module.loss import Loss, losses_of, missing
from checkpointable.module.mixin import CheckpointingMixin
from checkpointable.module.super_calls import Parts, part
from checkpointable.saving.run_attributes import RunAttributes

if TYPE_CHECKING:
    from lightning.pytorch import Callback

_theirs = CheckpointingMixin._checkpointing_parts


def _prepare(module: LossSteps) -> None:
    cls = type(module)
    if cls.compute_loss is LossSteps.compute_loss and cls.training_step is LossSteps.training_step:
        raise missing(cls)
    internals.show_validation_step(module)
    trainer = internals.fitting_trainer(module)
    ours = cls.validation_step is LossSteps.validation_step
    if trainer is not None and ours and not internals.has_val_loader(trainer):
        internals.hide_validation_step(module)


class LossSteps(CheckpointingMixin):
    """The steps and the optimizer of a ``CheckpointingModule``, in front of either tree's ``LightningModule``."""

    _checkpointing_expects_super: ClassVar[bool] = True
    _checkpointing_parts: ClassVar[Parts] = {
        **_theirs,
        "configure_callbacks": (_prepare, *_theirs["configure_callbacks"]),
        "on_validation_epoch_end": (log_overall, *_theirs["on_validation_epoch_end"]),
    }

    def __init__(self, *args: Any, learning_rate: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(learning_rate, bool) or not isinstance(learning_rate, Real) or not 0 < learning_rate < math.inf:
            raise PolicyError(f"learning_rate={learning_rate!r}: must be a finite number above 0")
        self.learning_rate: float = learning_rate
        self._checkpointing_means = Means()

    def compute_loss(self, batch: Any, batch_idx: int) -> Loss:
        """The loss of one batch, in training, validation and test. The one method to write.

        Args:
            batch: What the loader gives.
            batch_idx: Its number in the epoch, from 0. May be left out: ``compute_loss(self, batch)``.

        Returns:
            The loss: scalar tensor, shape (); or a mapping whose ``"loss"`` is one. Its other entries are scalars,
            averaged and logged beside it as ``train_<name>``, ``val_<name>`` and ``test_<name>``.
        """
        raise missing(type(self))

    @compiled_inside
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """For every training batch: calls ``compute_loss``, logs ``train_loss``, notes whether an interval ends here.

        ``train_loss`` is logged for the step and as the epoch's mean. If an interval ends, the save follows at the safe
        point after the batch.

        Returns:
            The loss, shape ().

        Raises:
            ComputeLossError: If ``compute_loss`` returned something that is not a loss, or has no gradient.
        """
        losses = losses_of(self, batch, batch_idx, training=True)
        log_training(self, losses, batch)
        self._checkpointing.note_batch(batch_idx)  # does this batch end an interval? Its safe point saves
        loss: torch.Tensor = losses["loss"]
        return loss

    @compiled_inside
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """For every validation batch: calls ``compute_loss``; ``val_loss`` is its mean over samples and ranks.

        Raises:
            ComputeLossError: If ``compute_loss`` returned something that is not a loss.
        """
        losses = losses_of(self, batch, batch_idx, training=False)
        log_evaluation(self, losses, "val", batch, batch_idx, dataloader_idx)

    @compiled_inside
    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """For every test batch: calls ``compute_loss``; ``test_loss`` is its mean over samples and ranks.

        Raises:
            ComputeLossError: If ``compute_loss`` returned something that is not a loss.
        """
        losses = losses_of(self, batch, batch_idx, training=False)
        log_evaluation(self, losses, "test", batch, batch_idx, dataloader_idx)

    save_interval = RunAttributes.save_interval
    best_val_loss = RunAttributes.best_val_loss

    @part
    def configure_callbacks(self) -> Sequence[Callback] | Callback:
        """Before every fit, validation and test: as in ``CheckpointingMixin``.

        Raises:
            MissingComputeLossError: If neither ``compute_loss`` nor ``training_step`` is written.
        """
        _prepare(self)
        return super().configure_callbacks()

    @part
    def on_validation_epoch_end(self) -> None:
        """After the batches of a validation: logs ``val_loss`` over all loaders, and moves ``best_val_loss``."""
        log_overall(self)
        super().on_validation_epoch_end()

    def configure_optimizers(self) -> Any:
        """The default optimizer: ``AdamW`` over the parameters that require gradients. Override it for another one.

        Raises:
            PolicyError: If there is no such parameter.
        """
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        if not weights:
            raise PolicyError(f"{type(self).__name__} has no parameter to train. Make its layers in __init__.")
        return torch.optim.AdamW(weights, lr=self.learning_rate)
