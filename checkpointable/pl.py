"""``CheckpointingModule`` for scripts that ``import pytorch_lightning``, whose classes are not those of ``lightning``.

``Checkpointing`` and ``CheckpointingMixin`` work with both packages, so they are here as they are in the library::

    import pytorch_lightning as pl
    from checkpointable.pl import CheckpointingModule
"""

from __future__ import annotations

from pytorch_lightning import LightningModule

from checkpointable.module.checkpointing import Checkpointing
from checkpointable.module.loss_steps import LossSteps
from checkpointable.module.mixin import CheckpointingMixin

__all__ = ["Checkpointing", "CheckpointingMixin", "CheckpointingModule"]


class CheckpointingModule(LossSteps, LightningModule):  # type: ignore[misc]  # checked against the class of ``lightning``
    """As ``checkpointable.CheckpointingModule``, for a ``pytorch_lightning.Trainer``."""
