"""The loaders of a fit, each behind a ``LoaderPosition``, over which Lightning's ``CombinedLoader`` iterates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals import combined_loader
from checkpointable.resume import rng
from checkpointable.resume.loader_position import LoaderPosition
from checkpointable.resume.state import LoaderState, RunState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.utilities import CombinedLoader


class Positions:
    """The positions of one ``CombinedLoader``, over which it iterates in place of its loaders; see ``StandIns``."""

    def __init__(self, loaders: Sequence[Any]) -> None:
        self.loaders = [LoaderPosition(loader) for loader in loaders]
        self.fetches_ahead = False

    def on_pass_start(self) -> None:
        """Before the iterators of a pass are made."""
        for position in self.loaders:
            position.starts = 0

    def on_pass_started(self, *, fetches_ahead: bool) -> None:
        """After they are made."""
        self.fetches_ahead = fetches_ahead
        for position in self.loaders:
            position.ahead = fetches_ahead

    def ended_once(self) -> list[bool]:
        """Which loaders have ended in this pass already, and started over."""
        return [position.starts > 1 for position in self.loaders]

    def on_fetch(self) -> None:
        """Before a batch is fetched ahead from every loader."""
        fetched = rng.capture()
        for position in self.loaders:
            position.look_ahead(fetched)


def track_positions(loader: CombinedLoader) -> list[LoaderPosition]:
    """Iterate over these loaders through positions. Calling it again for the same loaders changes nothing."""
    tracked = positions_of(loader)
    if [position.loader for position in tracked] == list(loader.flattened):
        return tracked
    positions = Positions(loader.flattened)
    combined_loader.observe(loader, positions)
    return positions.loaders


def positions_of(loader: CombinedLoader | None) -> list[LoaderPosition]:
    """The positions of the loaders; none if they are not tracked."""
    stand_ins = combined_loader.stand_ins(loader)
    return stand_ins.loaders if isinstance(stand_ins, Positions) else []


def mark_consumed(loader: CombinedLoader | None) -> None:
    """Note at a safe point that all delivered batches have been trained."""
    stand_ins = getattr(loader, "stand_ins", None)  # as positions_of, without its calls: it is done for each batch
    if isinstance(stand_ins, Positions):
        for position in stand_ins.loaders:
            position.mark_consumed()


def may_have_drawn(loader: CombinedLoader | None) -> bool:
    """Whether a fetch since the last safe point may have drawn from the generators of this process."""
    positions = positions_of(loader)
    return not positions or any(position.may_have_drawn for position in positions)


def states(loader: CombinedLoader | None, *, consumed_only: bool) -> tuple[LoaderState, ...]:
    """Where each loader stands; see ``LoaderPosition.state``."""
    return tuple(position.state(consumed_only=consumed_only) for position in positions_of(loader))


def follows_from(trainer: Trainer, position: LoaderPosition, saved: LoaderState) -> bool:
    """Whether the next pass depends on how this one was left: by its own state, in a loader or a data set."""
    own = position.own
    if own.is_torchdata or not own.of_loader:
        return own.of_data
    return saved.has_ended or trainer.fit_loop.restarting  # where Lightning gives loaders their state back, too


def was_last(trainer: Trainer, state: RunState | None) -> bool:
    """Whether the epoch resumed in has no batch left, and only the validation of its last one is to come."""
    is_last: bool = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    return state is not None and state.before_validation and is_last
