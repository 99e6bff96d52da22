"""The checkpoint that a fit resumes from, the same one on all ranks, or an error on all of them.

Each rank runs the script, and may be given another file: a rank on another machine sees other files, and a file may
appear between the moments at which two ranks look. Without agreement they would wait for each other in vain.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn

from checkpointable._errors import CheckpointableWarning, ResumeError
from checkpointable.lightning_internals import slurm
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.names import KEY
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.saving import auto_resume, requeued, verified
from checkpointable.storage.paths import is_remote

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_CURE = (
    "All ranks have to see the same files: use a directory that all machines share. With dirpath and resume='auto',"
    " rank 0 alone looks for the newest checkpoint."
)


def load(options: Options, trainer: Trainer, given: str | None, read: Callable[[str | None], None]) -> None:
    """Read the checkpoint that the script gives or that ``resume`` finds. Collective.

    Args:
        given: The ``ckpt_path`` of this rank.
        read: Reads a checkpoint into the trainer; does nothing for ``None``.

    Raises:
        ResumeError: On all ranks, if they were given different files and not all of them have that of rank 0, if one of
            them cannot read it, or if what they have read is not of the same run and position.
    """
    requeued.begin_fit()
    if slurm.is_own_save(trainer, given):  # Lightning takes the file of an earlier job where the script gives none
        given = auto_resume.find(options, trainer) or given
    if trainer.world_size == 1:
        path = verified.intact(trainer, given or auto_resume.find(options, trainer))
        verified.read_by_strategy(trainer, path, read)
        return
    of_all = _of_all(trainer, None if given is None else os.fspath(given))
    path = _agreed(trainer, of_all) if any(of_all) else auto_resume.find(options, trainer)
    path = verified.intact(trainer, path)
    failure = _failure(lambda: verified.read_by_strategy(trainer, path, read))
    _check_read(trainer, path, failure)


def _agreed(trainer: Trainer, given: Sequence[str | None]) -> str:
    """The file of rank 0, if all ranks have it."""
    first, differing = given[0], _by_rank(given)
    if len(differing) == 1 and first is not None:
        return first
    has_it = _of_all(trainer, first is not None and (is_remote(first) or os.path.exists(first)))
    if first is None or not all(has_it):
        raise ResumeError(f"cannot resume: the ranks were given different checkpoints.\n{_listed(differing)}\n{_CURE}")
    rank_zero_warn(
        f"the ranks were given different checkpoints. All resume from that of rank 0.\n{_listed(differing)}",
        category=CheckpointableWarning,
    )
    return first


def _failure(work: Callable[[], None]) -> Exception | None:
    try:
        work()
    except Exception as error:  # noqa: BLE001  # raised by _check_read, after the other ranks know of it
        return error
    return None


def _check_read(trainer: Trainer, path: str | None, failure: Exception | None) -> None:
    failures = _of_all(trainer, None if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    if any(failures):
        found = _listed(_by_rank(["read" if it is None else it for it in failures]))
        raise ResumeError(f"cannot resume from {path}: not every rank can read it.\n{found}\n{_CURE}")
    read = _by_rank(_of_all(trainer, _identity(trainer)))
    if len(read) > 1:
        raise ResumeError(f"cannot resume from {path}: the ranks have read different files.\n{_listed(read)}\n{_CURE}")


def _identity(trainer: Trainer) -> str:
    """What was read, in words."""
    checkpoint: Mapping[str, Any] = internals.loaded_checkpoint(trainer) or {}
    state = checkpoint.get(KEY, {})
    of_run = f" of run {state['run_id']}, after {Position(**state['position'])}" if state else ""
    return f"{trainer.ckpt_path}, step {checkpoint.get('global_step')}{of_run}"


def _by_rank(values: Sequence[str | None]) -> dict[str, list[int]]:
    """Which ranks have each value."""
    found: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        found.setdefault("none" if value is None else value, []).append(rank)
    return found


def _listed(by_rank: Mapping[str, Sequence[int]]) -> str:
    return "\n".join(
        f"  rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}: {value}"
        for value, ranks in by_rank.items()
    )


def _of_all(trainer: Trainer, mine: Any) -> list[Any]:
    """What each rank has here. Collective."""
    of_all: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(of_all, mine)
    return of_all
