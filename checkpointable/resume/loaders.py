"""The loaders of a fit, each behind a ``LoaderPosition``, over which Lightning's ``CombinedLoader`` iterates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch.utilities import CombinedLoader

from checkpointable.lightning_internals import combined_loader
from checkpointable.resume import owned_rng, rng
from checkpointable.resume.loader_position import LoaderPosition, carries_state
from checkpointable.resume.state import LoaderState


class Positions:
    """The positions of one ``CombinedLoader``, over which it iterates in place of its loaders."""

    def __init__(self, loaders: Sequence[Any]) -> None:
        self.loaders = [LoaderPosition(loader) for loader in loaders]
        self._fetches_ahead = False

    def on_pass_start(self) -> None:
        """Before the iterators of a pass are made."""
        for position in self.loaders:
            position.starts = 0

    def on_pass_started(self, *, fetches_ahead: bool) -> None:
        """After they are made."""
        self._fetches_ahead = fetches_ahead
        for position in self.loaders:
            position.ahead = fetches_ahead

    def ended_once(self) -> list[bool]:
        """Which loaders have ended in this pass already, and started over."""
        return [position.starts > 1 for position in self.loaders]

    def on_fetch(self) -> None:
        """Before a batch is fetched from every loader."""
        if self._fetches_ahead:
            fetched = rng.capture()
            for position in self.loaders:
                position.look_ahead(fetched)


def track_positions(loader: CombinedLoader) -> list[LoaderPosition]:
    """Iterate over these loaders through positions. Calling it again for the same loaders changes nothing."""
    if [position.loader for position in positions_of(loader)] != list(loader.flattened):
        combined_loader.observe(loader, Positions(loader.flattened))
    return positions_of(loader)


def positions_of(loader: CombinedLoader | None) -> list[LoaderPosition]:
    """The positions of the loaders; none if they are not tracked."""
    stand_ins = combined_loader.stand_ins(loader)
    return stand_ins.loaders if isinstance(stand_ins, Positions) else []


def mark_consumed(loader: CombinedLoader | None) -> None:
    """Note at a safe point that all delivered batches have been trained."""
    for position in positions_of(loader):
        position.mark_consumed()


def may_have_drawn(loader: CombinedLoader | None) -> bool:
    """Whether a fetch since the last safe point may have drawn from the generators of this process."""
    positions = positions_of(loader)
    return not positions or any(position.may_have_drawn for position in positions)


def states(loader: CombinedLoader | None, *, consumed_only: bool) -> tuple[LoaderState, ...]:
    """Where each loader stands; see ``LoaderPosition.state``."""
    return tuple(
        replace(position.state(consumed_only=consumed_only), own_rng=owned_rng.capture(position.loader))
        for position in positions_of(loader)
    )


def resume_at(loader: CombinedLoader, saved: Sequence[LoaderState], epoch: int, *, between_passes: bool) -> None:
    """Start the next pass where an earlier run stood.

    Args:
        loader: Of the training.
        saved: What ``states`` gave.
        epoch: For the samplers.
        between_passes: Whether that pass had ended. Then only the state that a data set keeps for the next pass is
            restored: Lightning starts a pass when it makes the loaders, and another one when the epoch starts.
    """
    for position, state in zip(track_positions(loader), saved, strict=False):
        if not between_passes or carries_state(position.loader):
            position.resume_at(state, epoch)


def restore_generators(loader: CombinedLoader | None, saved: Sequence[LoaderState], *, include_samplers: bool) -> None:
    """Restore the loaders' own generators to their states when the checkpoint was saved.

    Args:
        loader: Of one loop; ``None`` if it has none yet.
        saved: What ``states`` gave.
        include_samplers: Also restore those that draw the order. Inside a pass they are left: it has been drawn again.
    """
    for position, state in zip(positions_of(loader), saved, strict=False):
        if include_samplers:
            owned_rng.set_counts(position.loader, state.sampler_counts)
        in_data = ("dataset.", "collate_fn.")
        generators = {at: s for at, s in state.own_rng.items() if include_samplers or at.startswith(in_data)}
        owned_rng.restore(position.loader, generators)


def start_persistent_workers(loader: CombinedLoader, saved: Sequence[LoaderState]) -> None:
    """Start the workers that were running when the checkpoint was saved. The global generators stay unchanged."""
    for position, state in zip(track_positions(loader), saved, strict=False):
        if state.iterator_rng is not None:
            position.start_persistent_workers(state.iterator_rng)
