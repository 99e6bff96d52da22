"""The directory of a fit: which one it is, and what is there before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from checkpointable._errors import PolicyError, SaveError
from checkpointable.catalog.info import CheckpointInfo, metadata_of
from checkpointable.catalog.scan import infos
from checkpointable.lightning_internals import model_parallel
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.names import is_version
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.saving.promotion import Promotion
from checkpointable.storage.local import store_at
from checkpointable.storage.paths import absolute, join, parent
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
    """The directory of a fit, the file resumed from, and the checkpoints where both lie, at and below."""

    store: Store
    resumed_from: str | None
    found: list[CheckpointInfo]

    def own(self, options: Options, run_id: str, lineage: Lineage) -> list[CheckpointInfo]:
        """What the run has saved, each save once: where it saves now, and where it had saved the file resumed from.

        Copies that the user made count only if the run resumes from one of them, and their originals are gone.
        """
        assert self.resumed_from is not None
        names = {info.path: info.base_name for info in self.found}
        there = saved_in(self.resumed_from, names.get(self.resumed_from))
        kept: dict[object, CheckpointInfo] = {}
        for directory in (self.store.directory, *options.places, there):
            for info in self.found:
                if info.run_id == run_id and info.belongs_to(lineage, directory):
                    kept.setdefault(info.identity, info)
        return list(kept.values())


def look(trainer: Trainer, options: Options, resumed_from: str | None) -> Place:
    """On rank 0: the directory in which files are saved first, tried, and what is there."""
    if options.fast_dirpath is not None and model_parallel.saves_in_shards(trainer):
        raise SaveError(
            f"fast_dirpath={str(options.fast_dirpath)!r}: checkpoints in shards are not copied. Leave it out, or let"
            " the strategy save one file (save_distributed_checkpoint=False)."
        )
    if options.places:
        directory = options.places[0]
    elif resumed_from is not None and not _is_artifact(resumed_from):
        described = metadata_of(resumed_from)
        directory = saved_in(resumed_from, None if described is None else described.base_name)
    else:
        directory = internals.checkpoint_directory(trainer)
    store = store_at(directory)
    store.prepare(below="/" in options.filename + options.best_filename)
    if resumed_from is None:
        return Place(store, None, [])
    found = list(infos(store.directory))
    if not store.contains(resumed_from):
        found += infos(parent(resumed_from))
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
    place.found.extend(promotion.open(may_fail=resumed_from is not None and store.contains(resumed_from)))
    return promotion


def _is_artifact(path: str) -> bool:
    """Whether a file is in the folder of a logger's service: what is there is the service's, and is not changed."""
    return "artifacts" in parent(path).split("/")


def saved_in(path: str, base_name: str | None) -> str:
    """The directory in which a run had saved a file: its template may have put it into a subdirectory."""
    folders = 0 if base_name is None else base_name.count("/")
    directory = parent(path)
    for _ in range(folders):
        directory = parent(directory)
    is_named = base_name is not None and is_version(path, join(directory, base_name))
    return directory if is_named else parent(path)
