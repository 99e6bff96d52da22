"""Connects the flight recorder to a fit: where its traces lie, and what is expected of a resume."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from checkpointable.resume.confirmation import Expectation
from checkpointable.resume.recorder import Recorder
from checkpointable.resume.traces import Traces
from checkpointable.saving.session import Session
from checkpointable.storage.paths import is_remote, parent

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def prepare(trainer: Trainer, session: Session) -> None:
    """Find out where the traces of the run lie, once its directory is known."""
    session.recorder.close()
    session.recorder = Recorder(_traces(trainer, session))


def start(trainer: Trainer, session: Session) -> None:
    """Record each batch from here on, and compare those that an earlier attempt has trained, too."""
    expectation = Expectation(
        is_same=session.restorer.expects_same,
        strict=session.options.strict_resume,
        in_16_bit="16" in str(trainer.precision),
        rank=f" (rank {trainer.global_rank})" if trainer.world_size > 1 else "",
        resumed_from=session.saver.resumed_from,
    )
    resumed_after = None if session.saver.resumed_from is None else session.progress.position.batches
    session.recorder.start(session.progress.lineage, resumed_after, expectation)


def _traces(trainer: Trainer, session: Session) -> Traces | None:
    """They lie beside the checkpoints, or under the trainer's root directory if these are remote.

    Those beside the file resumed from are found, too. ``None`` if there is no local directory.
    """
    saver = session.saver
    places = [] if saver.store is None else [saver.store.directory]
    if saver.resumed_from is not None:
        places.append(parent(saver.resumed_from))
    places = [trainer.default_root_dir if is_remote(place) else place for place in places]
    local = dict.fromkeys(os.path.realpath(place) for place in places if not is_remote(place))
    if not local:
        return None
    ranks = trainer.world_size
    return Traces(directories=tuple(local), run_id=session.progress.run_id, rank=trainer.global_rank, ranks=ranks)
