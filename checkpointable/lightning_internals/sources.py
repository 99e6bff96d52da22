"""Where loaders come from: a run that resumes makes them as in the epoch in which they were made before.

A ``train_dataloader`` may read ``current_epoch``, for a curriculum. Without ``reload_dataloaders_every_n_epochs`` it is
called in the first epoch only, and a resume in a later one would give other data.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals.loops import session_of
from checkpointable.lightning_internals.tree import Mixin, put_before

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.trainer.connectors.data_connector import _DataLoaderSource
else:  # at run time, the base is the class of the source that is observed
    _DataLoaderSource = object


def observe(trainer: Trainer) -> None:
    """Let the sources of this trainer ask the session in which epoch. Doing it again changes nothing."""
    for source in (trainer.fit_loop._data_source, trainer.fit_loop.epoch_loop.val_loop._data_source):
        put_before(_ObservedSource, source)


class _ObservedSource(Mixin, _DataLoaderSource):
    def dataloader(self) -> Any:
        """The loaders, which the hook of a module or a data module makes."""
        trainer = getattr(self.instance, "trainer", None) if self.is_module() else None
        if trainer is None:
            return super().dataloader()
        epoch = session_of(trainer).restorer.epoch_of_loaders(trainer, validation=self.name == "val_dataloader")
        with _in_epoch(trainer, epoch):
            return super().dataloader()


@contextlib.contextmanager
def _in_epoch(trainer: Trainer, epoch: float) -> Iterator[None]:
    """Let ``current_epoch`` be this one; infinite: the present one."""
    progress = trainer.fit_loop.epoch_progress.current
    before = progress.completed
    if math.isfinite(epoch):
        progress.completed = int(epoch)
    try:
        yield
    finally:
        progress.completed = before
