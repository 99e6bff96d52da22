"""A job that SLURM starts again: the fit that it had interrupted goes on, also where the script asks for no resume.

Lightning does so from the file that it saves before it requeues. We note where a run lies as soon as its directory is
open, since a job is also requeued where nothing was saved last, as after the failure of a machine. A fit that ends
deletes its note. It is found again by a fit of the same command, module and length, in the same directory if the script
gives one, and else as the same one of the script's fits.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from checkpointable._errors import CheckpointableWarning, ResumeError
from checkpointable.catalog.scan import Found, scan
from checkpointable.catalog.select import Choice, choose, newest
from checkpointable.lightning_internals import slurm
from checkpointable.policy.options import Options
from checkpointable.saving.on_rank_zero import on_rank_zero
from checkpointable.storage.paths import is_remote

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_FITS: list[None] = []  # one for each fit that this process has begun


def begin_fit() -> None:
    """Count a fit, whether it saves or not."""
    _FITS.append(None)


def note(trainer: Trainer, options: Options, directory: str, run_id: str) -> None:
    """Note where this fit saves, for the job that is started again; with a ``fast_dirpath`` in two places."""
    if not trainer.is_global_zero or not slurm.requeues(trainer) or not slurm.job():
        return
    path = _notes(trainer) / f"{_prefix()}{len(_FITS)}.json"
    places = options.places if options.fast_dirpath is not None else [directory]
    noted = {"places": places, "run_id": run_id, **_identity(trainer, options, len(_FITS))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".tmp").open("w") as file:
            json.dump(noted, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
    except OSError as error:
        rank_zero_warn(
            f"cannot write {path}: {error}. If SLURM requeues this job, it starts a new run unless fit gets a ckpt_path"
            " or the module resume='auto'. Pass the trainer a default_root_dir that can be written.",
            category=CheckpointableWarning,
        )


def end_fit(trainer: Trainer) -> None:
    """Delete the note of this fit, which has ended."""
    if trainer.is_global_zero and slurm.requeues(trainer):
        with contextlib.suppress(OSError):  # then a job that is started again finds the run ended
            (_notes(trainer) / f"{_prefix()}{len(_FITS)}.json").unlink(missing_ok=True)


def find(options: Options, trainer: Trainer) -> str | None:
    """The newest checkpoint of this fit's run, if the job was interrupted in it before; else ``None``. Collective."""
    if not slurm.is_started_again(trainer):
        return None
    path: str | None = on_rank_zero(trainer, lambda: _look(trainer, options), ResumeError)
    return path


def foresee(options: Options, trainer: Trainer) -> str | None:
    """What ``find`` will find once this fit is counted, by this process alone, and if all files are intact."""
    noted = _noted(trainer, options, len(_FITS) + 1) if slurm.is_started_again(trainer) else None
    if noted is None:
        return None
    found = reversed(scan(noted["places"]).infos)
    return next((it.path for it in found if it.run_id == noted["run_id"] and not it.weights_only), None)


def _look(trainer: Trainer, options: Options) -> str | None:
    noted = _noted(trainer, options, len(_FITS))
    return None if noted is None else _newest(noted["places"], noted["run_id"])


def _noted(trainer: Trainer, options: Options, fit: int) -> dict[str, Any] | None:
    """What an earlier job has noted of this fit of the process; ``None`` if there is nothing to resume."""
    mine = _identity(trainer, options, fit)
    for path in sorted(_notes(trainer).glob(f"{_prefix()}*.json")):
        try:
            noted = json.loads(path.read_text())
            if {name: noted[name] for name in mine} == mine:
                return {"places": noted["places"], "run_id": noted["run_id"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            rank_zero_warn(
                f"cannot read {path}, which says where a fit of this job saves: {error}. Delete it, and pass ckpt_path"
                " if that fit shall go on.",
                category=CheckpointableWarning,
            )
    return None


def _newest(places: list[str], run_id: str) -> str | None:
    def of_run(found: Found) -> Choice:
        return newest(replace(found, infos=[info for info in found.infos if info.run_id == run_id]))

    choice, _ = choose(places, of_run)
    choice.warn(stacklevel=2)
    if choice.info is None:
        rank_zero_info(f"checkpointable: nothing to resume: no file of this job's run is in {' or '.join(places)}.")
        return None
    return choice.info.path


def _identity(trainer: Trainer, options: Options, fit: int) -> dict[str, Any]:
    """By what a fit is found again."""
    module = type(trainer.lightning_module)
    directory = None if options.dirpath is None else os.fspath(options.dirpath)
    return {
        "command": sys.argv,
        "module": f"{module.__module__}.{module.__qualname__}",
        "length": [trainer.max_epochs, trainer.max_steps],
        "dirpath": directory,
        "fit": fit if directory is None else None,
    }


def _notes(trainer: Trainer) -> Path:
    root = trainer.default_root_dir
    return Path(os.getcwd() if is_remote(root) else root)


def _prefix() -> str:
    step, command = os.environ.get("SLURM_STEP_ID", "0"), zlib.crc32(repr(sys.argv).encode())
    return f".checkpointable-slurm-{slurm.job()}-{step}-{command:08x}-"
