"""The directory of a fit: which one it is, and what is there before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from checkpointable._errors import PolicyError, SaveError
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import infos
from checkpointable.lightning_internals import model_parallel
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.saving.promotion import Promotion
from checkpointable.storage.local import store_at
from checkpointable.storage.paths import absolute, parent
from checkpointable.storage.store import Store

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def with_absolute_dirpath(options: Options) -> Options:
    """The same arguments, with directories that do not depend on the working directory any more."""
    dirpath, fast = (None if it is None else absolute(it) for it in (options.dirpath, options.fast_dirpath))
    if fast is not None and fast == dirpath:
        raise PolicyError(f"fast_dirpath={fast!r}: is the dirpath itself; pass another directory, or leave it out")
    return options if dirpath is None else replace(options, dirpath=dirpath, fast_dirpath=fast)


@dataclass(frozen=True)
class Place:
    """The directory of a fit, the file resumed from, and the checkpoints that concern it."""

    store: Store
    resumed_from: str | None
    found: list[CheckpointInfo]


def look(trainer: Trainer, options: Options, resumed_from: str | None) -> Place:
    """On rank 0: the directory in which files are saved first. Checkpoints are there and beside the one resumed."""
    if options.fast_dirpath is not None and model_parallel.saves_in_shards(trainer):
        raise SaveError(
            f"fast_dirpath={str(options.fast_dirpath)!r}: checkpoints in shards are not copied. Leave it out, or let"
            " the strategy save one file (save_distributed_checkpoint=False)."
        )
    if options.places:
        directory = options.places[0]
    elif resumed_from is not None:
        directory = parent(resumed_from)
    else:
        directory = internals.checkpoint_directory(trainer)
    store = store_at(directory)
    below = "/" in options.filename + options.best_filename
    store.prepare(below=below)
    if resumed_from is None:
        return Place(store, None, [])
    directories = {store.directory, parent(resumed_from)}
    found = [info for directory in directories for info in infos(directory, below=below)]
    return Place(store, resumed_from, found)


def promotion_to(options: Options, place: Place, run_id: str, lineage: Lineage, position: Position) -> Promotion | None:
    """What copies to ``dirpath``, with a ``fast_dirpath``. What is there of this run is added to what was found.

    Raises:
        SaveError: If ``dirpath`` cannot be used, unless the run resumes from the fast directory.
    """
    if options.fast_dirpath is None:
        return None
    store, resumed_from = place.store, place.resumed_from
    promotion = Promotion(store, options, run_id, lineage, position, resumed_from)
    may_fail = resumed_from is not None and store.contains(resumed_from)
    there = promotion.open(may_fail=may_fail)
    first = {info.identity: info for info in [*place.found, *there] if store.contains(info.path)}
    place.found[:] = {info.identity: first.get(info.identity, info) for info in [*place.found, *there]}.values()
    return promotion
