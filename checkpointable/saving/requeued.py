"""A job that SLURM starts again: each of its fits goes on with its own run, also where the script asks for no resume.

Lightning does so from the file that it saves before it requeues. We note where a run lies as soon as its directory is
open, since a job is also requeued where nothing was saved last, as after the failure of a machine.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from checkpointable._errors import CheckpointableWarning, ResumeError
from checkpointable.catalog.scan import Found
from checkpointable.catalog.select import Choice, choose, newest
from checkpointable.lightning_internals import slurm
from checkpointable.saving.on_rank_zero import on_rank_zero
from checkpointable.storage.paths import is_remote

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_NOTED: list[str] = []  # the runs of this process, one for each fit so far


def note(trainer: Trainer, directory: str, run_id: str) -> None:
    """Note where this fit saves, for the job that is started again."""
    if not slurm.requeues(trainer) or not slurm.job():
        return
    path = _note_of_this_fit(trainer)
    _NOTED.append(run_id)
    if not trainer.is_global_zero:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps({"directory": directory, "run_id": run_id}))
        os.replace(beside, path)
    except OSError as error:
        rank_zero_warn(
            f"cannot write {path}: {error}. If SLURM requeues this job, it starts a new run unless fit gets a ckpt_path"
            " or the module resume='auto'. Pass the trainer a default_root_dir that can be written.",
            category=CheckpointableWarning,
        )


def find(trainer: Trainer) -> str | None:
    """The newest checkpoint of this fit's run, in a job that was started before; else ``None``. Collective."""
    if not slurm.is_started_again(trainer):
        return None
    path: str | None = on_rank_zero(trainer, lambda: _look(_note_of_this_fit(trainer)), ResumeError)
    return path


def _look(note: Path) -> str | None:
    if not note.exists():
        return None
    noted = json.loads(note.read_text())

    def of_run(found: Found) -> Choice:
        return newest(replace(found, infos=[info for info in found.infos if info.run_id == noted["run_id"]]))

    choice, _ = choose(noted["directory"], of_run)
    choice.warn(stacklevel=2)
    if choice.info is None:
        rank_zero_info(f"checkpointable: nothing to resume: the job's run has saved nothing in {noted['directory']}.")
        return None
    return choice.info.path


def _note_of_this_fit(trainer: Trainer) -> Path:
    root = trainer.default_root_dir
    name = f".checkpointable-slurm-{slurm.job()}-{len(_NOTED)}.json"
    return Path(os.getcwd() if is_remote(root) else root) / name
