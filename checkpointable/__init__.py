"""Checkpointing for PyTorch Lightning: subclass, write ``compute_loss``, kill it, go on."""

from checkpointable._errors import (
    CheckpointableError,
    CheckpointableWarning,
    CheckpointFileError,
    ComputeLossError,
    LightningVersionError,
    MissingComputeLossError,
    MonitorError,
    NotInitializedError,
    NotLoadedError,
    PolicyError,
    RemoteError,
    ResumeError,
    SaveError,
    UnknownArgumentError,
)
from checkpointable._version import __version__
from checkpointable.catalog.checkpoints import Checkpoints
from checkpointable.catalog.directory_report import doctor
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.select import best, latest
from checkpointable.module.checkpointing import Checkpointing
from checkpointable.module.mixin import CheckpointingMixin
from checkpointable.module.module import CheckpointingModule
from checkpointable.resume.single_file import to_single_file

__all__ = [
    "CheckpointFileError",
    "CheckpointInfo",
    "CheckpointableError",
    "CheckpointableWarning",
    "Checkpointing",
    "CheckpointingMixin",
    "CheckpointingModule",
    "Checkpoints",
    "ComputeLossError",
    "LightningVersionError",
    "MissingComputeLossError",
    "MonitorError",
    "NotInitializedError",
    "NotLoadedError",
    "PolicyError",
    "RemoteError",
    "ResumeError",
    "SaveError",
    "UnknownArgumentError",
    "__version__",
    "best",
    "doctor",
    "latest",
    "to_single_file",
]
