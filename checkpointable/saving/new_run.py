"""What is said when a new run begins: where it saves and when, and whether there was something to resume."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_info

from checkpointable.catalog.scan import checkpoint_files
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.options import Options
from checkpointable.saving.saver import Saver

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def announce(trainer: Trainer, options: Options, saver: Saver) -> None:
    """Say it on rank 0, unless the run resumes or this is a further fit of it; the directory exists."""
    if not trainer.is_global_zero or saver.resumed_from or internals.has_trained_before(trainer):
        return
    places = options.places if options.fast_dirpath is not None else [saver.directory]
    named = " or ".join(places)
    if any(any(itertools.islice(checkpoint_files(place, below=False), 1)) for place in places):
        cure = "resume='auto' holds for the first fit of a process that saves there"
        if options.resume is None:
            asked = places if len(places) > 1 else places[0]
            cure = f"to resume, give resume='auto', or ckpt_path=checkpointable.latest({asked!r}) to fit"
        begins = f"new run, although there are checkpoints in {named} ({cure})"
    else:
        begins = f"new run: no checkpoint in {named}"
    saves = f"Saves in {places[0]}, copied to {places[1]}" if len(places) > 1 else "Saves there"
    rank_zero_info(f"checkpointable: {begins}. {saves}: {', '.join(when(options))}.")


def say_if_never_due(trainer: Trainer, options: Options) -> None:
    """Say it if no epoch is as long as the interval. An epoch that Lightning cannot count may be."""
    interval, batches = options.interval, trainer.num_training_batches
    if interval is not None and batches < interval.batches:
        number = interval.batches
        rank_zero_info(
            f"checkpointable: save_interval={number} counts the batches of an epoch, and an epoch has {batches}, so it"
            f" never saves. Pass a smaller one, or every_n_train_steps={number}, which counts over epochs."
        )


def when(options: Options) -> list[str]:
    """The moments at which files are saved, in words."""
    keeps, time = options.save_last_k != 0, options.train_time_interval
    said = {
        f"as often as {options.overhead_budget:.2%} of the training time allows": options.measures_interval,
        f"every {_count(options.save_interval, 'batch', 'batches')}": options.interval is not None,
        f"every {_count(options.every_n_train_steps, 'optimizer step')}": keeps and options.every_n_train_steps,
        f"every {time}": keeps and time is not None,
        f"every {_count(options.every_n_epochs, 'epoch')}": keeps and options.every_n_epochs,
        f"for ever every {_count(options.keep_every_n_epochs, 'epoch')}": options.keep_every_n_epochs,
        f"the best {options.monitor}": options.keeps_best,
        "at the end of training": options.save_last,
        "on exceptions and signals": options.save_on_exception,
    }
    return [words for words, wanted in said.items() if wanted]


def _count(number: object, one: str, several: str = "") -> str:
    return one if number == 1 else f"{number} {several or one + 's'}"
