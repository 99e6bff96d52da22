"""``resume="auto"`` and ``"must"``: the checkpoint from which a fit resumes that was given none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_info

from checkpointable._errors import ResumeError
from checkpointable.catalog.scan import Found, scan
from checkpointable.catalog.select import choose, newest
from checkpointable.catalog.unusable import why_nothing
from checkpointable.lightning_internals import finders
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.options import Options
from checkpointable.saving import requeued
from checkpointable.saving.on_rank_zero import on_rank_zero
from checkpointable.storage.paths import parent

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_LOOKED: set[str] = set()  # the directories in which this process has looked: its later fits start there anew


def find(options: Options, trainer: Trainer) -> str | None:
    """The checkpoint to resume from; ``None`` for a new run. Rank 0 looks, and all ranks follow. Collective.

    Raises:
        ResumeError: If there is none, and there must be one; or if the directory cannot be read.
    """
    if internals.fast_dev_run(trainer) or finders.is_tuning(trainer) or internals.has_trained_before(trainer):
        return None
    if options.resume is None or options.dirpath is None:
        return requeued.find(options, trainer)
    places = options.places
    if places[-1] in _LOOKED:
        return None
    _LOOKED.add(places[-1])
    below = _saves_below(options)
    path: str | None = on_rank_zero(trainer, lambda: _look(places, options.resume, below=below), ResumeError)
    return path


def foresee(options: Options, trainer: Trainer) -> str | None:
    """What ``find`` will find, by this process alone, and if all files are intact; it says nothing."""
    if internals.fast_dev_run(trainer) or finders.is_tuning(trainer) or internals.has_trained_before(trainer):
        return None
    if options.resume is None or options.dirpath is None:
        return requeued.foresee(options, trainer)
    if options.places[-1] in _LOOKED:
        return None
    found = _of_places(scan(options.places), options.places, below=_saves_below(options))
    return next((info.path for info in reversed(found.infos) if not info.weights_only), None)


def _saves_below(options: Options) -> bool:
    return "/" in options.filename + options.best_filename


def _look(places: list[str], resume: str | None, *, below: bool) -> str | None:
    choice, found = choose(places, lambda found: newest(_of_places(found, places, below=below)))
    choice.warn(stacklevel=2)
    if choice.info is not None:
        return choice.info.path
    why = why_nothing(places, _of_places(found, places, below=below))
    if resume == "must":
        raise ResumeError(
            f"resume='must': {why}. Correct dirpath, or start a new run there with resume='auto' or resume=None."
        )
    if found.infos or found.unreadable or found.others:
        rank_zero_info(f"checkpointable: nothing to resume: {why}.")
    return None


def _of_places(found: Found, places: list[str], *, below: bool) -> Found:
    """Without the checkpoints in subdirectories, unless the templates of this run put its own there."""
    if below:
        return found
    return replace(
        found,
        infos=[info for info in found.infos if parent(info.path) in places],
        unreadable=[it for it in found.unreadable if parent(it.path) in places],
    )
