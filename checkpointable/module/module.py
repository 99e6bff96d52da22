"""``CheckpointingModule``: a LightningModule of which only ``compute_loss`` has to be written."""

from __future__ import annotations

from lightning.pytorch import LightningModule

from checkpointable.module.loss_steps import LossSteps


class CheckpointingModule(LossSteps, LightningModule):
    """A LightningModule that saves itself. Write ``compute_loss``; everything else has a default.

    Yours to override: ``compute_loss``, ``configure_optimizers``, and every other hook, best with ``super()``.
    To leave alone: names that start with ``_checkpointing``.

    Example::

        class LitDigits(CheckpointingModule):
            def __init__(self):
                super().__init__(save_interval=100)
                self.net = torch.nn.Linear(64, 10)

            def compute_loss(self, batch):
                images, labels = batch
                return torch.nn.functional.cross_entropy(self.net(images), labels)

    Args:
        learning_rate: Of the default optimizer. Lightning's ``Tuner`` changes the attribute of this name.
        args: Passed on to the next base class.
        kwargs: When, which, what and where to save: see ``CheckpointingMixin``.

    Raises:
        PolicyError: If arguments cannot be used; the message lists all of them.
    """
