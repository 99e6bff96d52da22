"""The loaders of a fit, each behind a stream. Lightning's ``CombinedLoader`` goes through the streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.utilities import CombinedLoader

from checkpointable.lightning_internals import trainer as internals
from checkpointable.resume import owned_rng, rng
from checkpointable.resume.loader_position import Stream, carries_state


class ObservedLoader(CombinedLoader):
    """A ``CombinedLoader`` whose iterators are made from streams. User code sees its own loaders, unchanged."""

    streams: list[Stream]
    _ahead = False

    def __iter__(self) -> Any:
        """Start a pass through every loader."""
        for stream in self.streams:
            stream.starts = 0
        plain = self._flattened
        self._flattened = self.streams
        try:
            super().__iter__()
        finally:
            self._flattened = plain
        internals.set_consumed(self, [stream.starts > 1 for stream in self.streams])
        self._ahead = sized_len(self) is None
        for stream in self.streams:
            stream.ahead = self._ahead
        return self

    def __next__(self) -> Any:
        """The next batch, of every loader that has one."""
        if self._ahead:
            fetched = rng.capture()
            for stream in self.streams:
                stream.look_ahead(fetched)
        return super().__next__()


def observe(loader: CombinedLoader) -> ObservedLoader:
    """Put streams before the loaders. Doing it again changes nothing, as long as they are the same ones."""
    if not isinstance(loader, ObservedLoader):
        loader.__class__ = ObservedLoader
        loader.streams = []  # type: ignore[attr-defined]  # it is an ObservedLoader now
    observed: ObservedLoader = loader  # type: ignore[assignment]  # the same
    if [stream.loader for stream in observed.streams] != list(observed.flattened):
        observed.streams = [Stream(part) for part in observed.flattened]
    return observed


def settle(loader: CombinedLoader | None) -> None:
    """At a safe point: what was delivered has been used."""
    if isinstance(loader, ObservedLoader):
        for stream in loader.streams:
            stream.settle()


def may_have_drawn(loader: CombinedLoader | None) -> bool:
    """Whether a fetch since the last safe point may have drawn from the generators of this process."""
    return not isinstance(loader, ObservedLoader) or any(stream.may_have_drawn for stream in loader.streams)


def places(loader: CombinedLoader | None, *, settled: bool) -> list[dict[str, Any]]:
    """Where every loader stands, with the present states of the generators it owns; see ``Stream.place``."""
    if not isinstance(loader, ObservedLoader):
        return []
    return [
        {**stream.place(settled=settled), "generators": owned_rng.capture(stream.loader)} for stream in loader.streams
    ]


def go_back_to(loader: ObservedLoader, saved: Sequence[Mapping[str, Any]], epoch: int, *, between_passes: bool) -> None:
    """Start the next pass where an earlier run stood.

    Args:
        loader: Of the training.
        saved: What ``places`` gave.
        epoch: For the samplers.
        between_passes: Whether that pass was over. Then only what a data set carries into the next pass has to come
            back: Lightning starts a pass when it makes the loaders, and another one when the epoch starts.
    """
    for stream, place in zip(loader.streams, saved, strict=False):
        if not between_passes or carries_state(stream.loader):
            stream.go_back_to(place, epoch)


def restore_generators(loader: CombinedLoader | None, saved: Sequence[Mapping[str, Any]], *, whole: bool) -> None:
    """Put the loaders' own generators into the states they had when the checkpoint was taken.

    Args:
        loader: Of one loop; ``None`` if it has none yet.
        saved: What ``places`` gave.
        whole: Also those that draw the order. Not in the middle of a pass: there the order was drawn again.
    """
    if isinstance(loader, ObservedLoader):
        for stream, place in zip(loader.streams, saved, strict=False):
            states = place["generators"].items()
            if whole:
                owned_rng.set_counts(stream.loader, place["counts"])
            owned_rng.restore(
                stream.loader, {at: s for at, s in states if whole or at.startswith(("dataset.", "collate_fn."))}
            )


def start_persistent_workers(loader: CombinedLoader, saved: Sequence[Mapping[str, Any]]) -> None:
    """Start the workers that were running already, without a trace in the generators: they drew their seed long ago."""
    for stream, place in zip(observe(loader).streams, saved, strict=False):
        if place["created"] is not None:
            stream.start_persistent_workers(place["created"])
