"""Which logged values were measured where the run stands. ``callback_metrics`` also has those of earlier positions.

Values of a validation and of an epoch are measured where it ends. Of values that are logged by batch, Lightning keeps
the latest; how often each was updated shows which of them the last batch has logged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from checkpointable.lightning_internals import logged
from checkpointable.policy.position import Position
from checkpointable.saving.monitor import scalars

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Measured:
    """Follows what one fit logs.

    Args:
        position: Where the run resumes.
        names: Of the values that were measured there, as the file has them.
    """

    def __init__(self, position: Position | None = None, names: Collection[str] = ()) -> None:
        self._ended_at, self._names = position, frozenset(names)  # the latest validation or epoch, and its values
        self._began_after = 0  # batches of the run before the present one
        self._updates: Mapping[str, int] | None = None  # when that one began; None if none has in this epoch
        self._updates_before: Mapping[str, int] | None = None  # when the one before it began

    def on_batch_start(self, trainer: Trainer, position: Position) -> None:
        """Before the next batch is fetched."""
        is_next = position.batches == self._began_after + 1
        self._updates_before = self._updates if is_next else None
        self._began_after, self._updates = position.batches, logged.updates(trainer)

    def after_validation(self, trainer: Trainer, position: Position) -> frozenset[str]:
        """At the end of a validation: note and return the names of what it has measured."""
        return self._note(position, logged.names_of_epoch(trainer))

    def after_training_epoch(self, trainer: Trainer, position: Position) -> frozenset[str]:
        """At the end of a training epoch: note and return the names of what is measured over all of it."""
        self._note(position, self._names_of_batch(trainer, position))
        self._updates = None  # Lightning forgets the values of the epoch
        return self._note(position, logged.names_of_epoch(trainer))

    def metrics(self, trainer: Trainer, position: Position) -> dict[str, float]:
        """The values that were measured at a position at which the run stands."""
        names = self._names_of_batch(trainer, position)
        if position == self._ended_at:
            names |= self._names
        values = scalars(trainer.callback_metrics)
        return {name: value for name, value in values.items() if name in names}

    def _note(self, position: Position, names: Collection[str]) -> frozenset[str]:
        found = frozenset(names)
        self._names = found | (self._names if position == self._ended_at else frozenset())
        self._ended_at = position
        return found

    def _names_of_batch(self, trainer: Trainer, position: Position) -> set[str]:
        """The names of what the last batch before a position has logged."""
        if self._updates is None:
            return set()
        if position.batches == self._began_after + 1:
            return logged.names_updated(trainer, self._updates, logged.updates(trainer))
        if position.batches == self._began_after and self._updates_before is not None:  # another one has begun
            return logged.names_updated(trainer, self._updates_before, self._updates)
        return set()
