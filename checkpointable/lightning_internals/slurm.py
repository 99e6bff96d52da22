"""Jobs of SLURM that Lightning requeues: SLURM sends a signal some time before the job has to end.

Lightning's handler saves, requeues the job and trains on: it saves in the middle of a batch, and what is trained
afterwards is lost. So where we save, the signal ends the training as SIGTERM does, and the job is requeued once the
state is on disk. Requeueing is still Lightning's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals.tree import is_a

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def requeues(trainer: Trainer) -> bool:
    """Whether Lightning requeues this job."""
    environment: Any = trainer._accelerator_connector.cluster_environment
    return is_a(environment, "SLURMEnvironment") and bool(environment.auto_requeue)


def requeue_signal(trainer: Trainer) -> int:
    """The number of the signal that SLURM sends."""
    environment: Any = trainer._accelerator_connector.cluster_environment
    return int(environment.requeue_signal)


def job() -> str:
    """The job, as SLURM's commands name it; ``""`` outside a job."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    task = "" if array is None else f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    return task or os.environ.get("SLURM_JOB_ID", "")


def is_started_again(trainer: Trainer) -> bool:
    """Whether SLURM has started this job before."""
    return requeues(trainer) and os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def is_own_save(trainer: Trainer, path: str | None) -> bool:
    """Whether a file is what Lightning saves before it requeues a job. It takes it where a fit is given none."""
    return path is not None and requeues(trainer) and os.path.basename(path).startswith("hpc_ckpt_")


class Saved:
    """A trainer for Lightning's handler, which saves before it requeues: the state is on disk already."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)

    def save_checkpoint(self, filepath: Any) -> None:
        """Nothing."""
