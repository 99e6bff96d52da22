"""Checkpointing for PyTorch Lightning: subclass, write ``compute_loss``, kill it, go on.

A name is imported when it is first used (PEP 562), so that a shell command waits for neither torch nor Lightning.
"""

import importlib as _importlib  # under these names, so that the front door shows what is public, and no more
import typing as _typing

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

if _typing.TYPE_CHECKING:
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

_HOMES = {
    "CheckpointInfo": "checkpointable.catalog.info",
    "Checkpointing": "checkpointable.module.checkpointing",
    "CheckpointingMixin": "checkpointable.module.mixin",
    "CheckpointingModule": "checkpointable.module.module",
    "Checkpoints": "checkpointable.catalog.checkpoints",
    "best": "checkpointable.catalog.select",
    "doctor": "checkpointable.catalog.directory_report",
    "latest": "checkpointable.catalog.select",
    "to_single_file": "checkpointable.resume.single_file",
}


def __getattr__(name: str) -> _typing.Any:
    """Import the public object of that name, and keep it, so that this runs once for each."""
    if name not in _HOMES:
        raise AttributeError(f"module 'checkpointable' has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """All names, those that are not imported yet included."""
    return sorted({*globals(), *__all__})
