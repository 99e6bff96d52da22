"""Every exception and warning of the library.

::

    CheckpointableError(Exception)
    ├── PolicyError(ValueError)                a setting of when, which, what or where to save cannot be used
    │   └── UnknownArgumentError(TypeError)    no base class takes an argument of that name
    ├── ComputeLossError(TypeError)            compute_loss returned something that is not a loss
    │   └── MissingComputeLossError(NotImplementedError)   the class has no compute_loss
    ├── MonitorError(LookupError)              the monitored quantity was not logged, or is not a scalar
    ├── SaveError(OSError)                     a checkpoint could not be made durable, or not be deleted
    ├── RemoteError(OSError)                   a remote file system cannot be used, or does not answer
    ├── CheckpointFileError(ValueError)        a file is not a checkpoint, or is damaged
    ├── NotLoadedError(TypeError)              a value is used that was not loaded, because that can run code
    ├── ResumeError(RuntimeError)              a checkpoint does not fit the run that resumes from it
    ├── NotInitializedError(RuntimeError)      super().__init__() was not called
    └── LightningVersionError(ImportError)     the installed Lightning lacks something the library needs

    CheckpointableWarning(UserWarning)         something needs your attention, and nothing was lost
"""

__all__ = [
    "CheckpointFileError",
    "CheckpointableError",
    "CheckpointableWarning",
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
]


class CheckpointableError(Exception):
    """Base of all exceptions of the library."""


class PolicyError(CheckpointableError, ValueError):
    """A setting cannot be used. The message lists every bad setting, its value and what is allowed."""


class UnknownArgumentError(PolicyError, TypeError):
    """No base class takes an argument of this name. The message suggests the closest name that one takes."""


class ComputeLossError(CheckpointableError, TypeError):
    """``compute_loss`` returned something training cannot use."""


class MissingComputeLossError(ComputeLossError, NotImplementedError):
    """A subclass of ``CheckpointingModule`` has no ``compute_loss``."""


class MonitorError(CheckpointableError, LookupError):
    """The monitored quantity was not logged when it should have been, or is not a scalar."""


class SaveError(CheckpointableError, OSError):
    """A checkpoint could not be made durable, or could not be deleted. What was saved before is untouched."""


class RemoteError(CheckpointableError, OSError):
    """The file system behind a URL cannot be used, or does not answer. It says nothing about the files there."""


class CheckpointFileError(CheckpointableError, ValueError):
    """A file is not a checkpoint, or is damaged."""


class NotLoadedError(CheckpointableError, TypeError):
    """A value of a checkpoint is used that was not loaded, because loading it can run code from the file."""


class ResumeError(CheckpointableError, RuntimeError):
    """A checkpoint does not fit the module or the run that resumes from it."""


class NotInitializedError(CheckpointableError, RuntimeError):
    """A subclass does not call ``super().__init__()``."""


class LightningVersionError(CheckpointableError, ImportError):
    """The installed Lightning lacks something the library needs."""


class CheckpointableWarning(UserWarning):
    """Something needs your attention, and nothing was lost."""
