"""The positions of all loaders of a fit: tracked, saved and restored together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.utilities import CombinedLoader

from checkpointable.lightning_internals import trainer as internals
from checkpointable.resume import owned_rng, rng
from checkpointable.resume.loader_position import LoaderPosition, carries_state
from checkpointable.resume.state import LoaderState


class ObservedLoader(CombinedLoader):
    """A ``CombinedLoader`` that iterates over positions. User code sees its own loaders, unchanged."""

    positions: list[LoaderPosition]
    _ahead = False

    def __iter__(self) -> Any:
        """Start a pass through every loader."""
        for position in self.positions:
            position.starts = 0
        plain = self._flattened
        self._flattened = self.positions
        try:
            super().__iter__()
        finally:
            self._flattened = plain
        internals.set_consumed(self, [position.starts > 1 for position in self.positions])
        self._ahead = sized_len(self) is None
        for position in self.positions:
            position.ahead = self._ahead
        return self

    def __next__(self) -> Any:
        """The next batch, of every loader that has one."""
        if self._ahead:
            fetched = rng.capture()
            for position in self.positions:
                position.look_ahead(fetched)
        return super().__next__()


def track_positions(loader: CombinedLoader) -> ObservedLoader:
    """Iterate over these loaders through positions. Calling it again for the same loaders changes nothing."""
    if not isinstance(loader, ObservedLoader):
        loader.__class__ = ObservedLoader
        loader.positions = []  # type: ignore[attr-defined]  # its class has just changed
    observed: ObservedLoader = loader  # type: ignore[assignment]  # its class is this one now
    if [position.loader for position in observed.positions] != list(observed.flattened):
        observed.positions = [LoaderPosition(part) for part in observed.flattened]
    return observed


def mark_consumed(loader: CombinedLoader | None) -> None:
    """Note at a safe point that all delivered batches have been trained."""
    if isinstance(loader, ObservedLoader):
        for position in loader.positions:
            position.mark_consumed()


def may_have_drawn(loader: CombinedLoader | None) -> bool:
    """Whether a fetch since the last safe point may have drawn from the generators of this process."""
    return not isinstance(loader, ObservedLoader) or any(position.may_have_drawn for position in loader.positions)


def states(loader: CombinedLoader | None, *, consumed_only: bool) -> tuple[LoaderState, ...]:
    """Where each loader stands; see ``LoaderPosition.state``."""
    if not isinstance(loader, ObservedLoader):
        return ()
    return tuple(
        replace(position.state(consumed_only=consumed_only), own_rng=owned_rng.capture(position.loader))
        for position in loader.positions
    )


def resume_at(loader: ObservedLoader, saved: Sequence[LoaderState], epoch: int, *, between_passes: bool) -> None:
    """Start the next pass where an earlier run stood.

    Args:
        loader: Of the training.
        saved: What ``states`` gave.
        epoch: For the samplers.
        between_passes: Whether that pass had ended. Then only the state that a data set keeps for the next pass is
            restored: Lightning starts a pass when it makes the loaders, and another one when the epoch starts.
    """
    for position, state in zip(loader.positions, saved, strict=False):
        if not between_passes or carries_state(position.loader):
            position.resume_at(state, epoch)


def restore_generators(loader: CombinedLoader | None, saved: Sequence[LoaderState], *, include_samplers: bool) -> None:
    """Restore the loaders' own generators to their states when the checkpoint was saved.

    Args:
        loader: Of one loop; ``None`` if it has none yet.
        saved: What ``states`` gave.
        include_samplers: Also restore those that draw the order. Inside a pass they are left: it has been drawn again.
    """
    if isinstance(loader, ObservedLoader):
        for position, state in zip(loader.positions, saved, strict=False):
            generators = state.own_rng.items()
            if include_samplers:
                owned_rng.set_counts(position.loader, state.sampler_counts)
            owned_rng.restore(
                position.loader,
                {at: s for at, s in generators if include_samplers or at.startswith(("dataset.", "collate_fn."))},
            )


def start_persistent_workers(loader: CombinedLoader, saved: Sequence[LoaderState]) -> None:
    """Start the workers that were running when the checkpoint was saved. The global generators stay unchanged."""
    for position, state in zip(track_positions(loader).positions, saved, strict=False):
        if state.iterator_rng is not None:
            position.start_persistent_workers(state.iterator_rng)
