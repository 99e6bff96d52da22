"""When the process has to be gone: a save that would not be done by then is not begun.

A process that is killed in the middle of a save loses nothing, but it does not end in order either.
"""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from checkpointable._errors import SaveError
from checkpointable.lightning_internals import signals
from checkpointable.policy.options import Options

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_JOB_END = "SLURM_JOB_END_TIME"  # in seconds since 1970, as SLURM sets it


def check(trainer: Trainer, options: Options, needed: float) -> None:
    """Refuse a save that takes longer than there is time.

    Args:
        needed: Seconds that such a save has taken here; infinite if that is not known, so that it is tried.

    Raises:
        SaveError: If there is less time.
    """
    left, until = min(_limits(trainer, options), default=(math.inf, ""))
    if left < needed < math.inf:
        raise SaveError(f"such a save takes {needed:.1f} s here, and {max(left, 0.0):.1f} s are left until {until}")


def _limits(trainer: Trainer, options: Options) -> list[tuple[float, str]]:
    """Seconds that are left, and until when."""
    found = []
    signalled = signals.seconds_since_signal(trainer)
    if signalled is not None and options.deadline_seconds is not None:
        until = f"the process has to end (deadline_seconds={options.deadline_seconds:g} after the signal)"
        found.append((options.deadline_seconds - signalled, until))
    end = os.environ.get(_JOB_END, "")
    left = int(end) - time.time() if end.isdigit() else -math.inf
    if left > 0:  # else it was put off, or is that of another job
        found.append((left, f"the job's end ({_JOB_END})"))
    return found
