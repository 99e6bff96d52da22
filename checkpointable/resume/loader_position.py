"""One loader's position in its data, counted in delivered batches, and the return to it.

An ordinary ``DataLoader`` returns through its sampler: the order is drawn again from the same random states, and the
index batches that were delivered are skipped without reading any data. A loader with a ``state_dict`` gets its state
back. Of any other loader, the delivered batches are read again and dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from checkpointable.lightning_internals.tree import set_sampler_epoch
from checkpointable.resume import owned_rng, rng
from checkpointable.resume.index_batches import IndexBatches, Order, draws_at_once
from checkpointable.resume.state import LoaderState


class LoaderPosition:
    """Iterates over a loader, counts the batches, and can start a pass where an earlier run stood.

    Attributes:
        is_indexed: Whether it is a ``DataLoader`` that reads its data set by index.
        has_own_state: Whether it keeps its own position, and is not one that returns through its sampler.
        carries_state: Whether it is a loader like torchdata's, over a data set whose state may outlast a pass.
        ahead: Whether Lightning fetches one batch ahead, which it does for loaders without a length.
        consumed: Of the delivered batches, those that had been trained at the last safe point.

    The other attributes are those of ``LoaderState``.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        is_torch = isinstance(loader, DataLoader)
        self.is_indexed = is_torch and not isinstance(loader.dataset, IterableDataset)
        self.has_own_state = not self.is_indexed and _has(loader, "state_dict") and _has(loader, "load_state_dict")
        self.carries_state = is_torch and self.has_own_state and _has(loader.dataset, "state_dict")
        self.ahead = False
        self.passes = self.starts = 0
        self.delivered = self.consumed = 0
        self.exhausted = False
        self.iterator_rng: Mapping[str, Any] | None = None
        self.pass_start_rng: Mapping[str, Any] = {}
        self.order = Order(loader)
        self._indices = IndexBatches(self.order) if is_torch and not self.has_own_state else None
        self._resumes_at: tuple[LoaderState, int] | None = None
        self._before: LoaderState | None = None
        self._before_consumed: LoaderState | None = None

    @property
    def indices(self) -> IndexBatches | None:
        """The index batches that the latest iterator reads, if it does."""
        return self._indices if self._indices is not None and self._indices.is_read else None

    def state(self, *, consumed_only: bool) -> LoaderState:
        """Where this loader stands; ``consumed_only``: with the batches trained at the last safe point."""
        state = self._before_consumed if consumed_only else self._before
        if state is None or not self.ahead:
            state = self._present(self.consumed if consumed_only else self.delivered, fetch_rng=None)
        return replace(state, own_rng=owned_rng.capture(self.loader))

    def look_ahead(self, fetch_rng: rng.State) -> None:
        """Note the state before Lightning fetches a batch ahead. Until the next fetch, this state is saved."""
        self._before = self._present(self.delivered, fetch_rng)

    @property
    def may_have_drawn(self) -> bool:
        """Whether a fetch since the last safe point may have drawn in this process, and not only in a worker."""
        indices = self.indices
        if indices is None or not self.is_indexed or not self.loader.num_workers:
            return True
        return self.delivered != self.consumed or not draws_at_once(indices.source)

    def mark_consumed(self) -> None:
        """Note at a safe point that all delivered batches have been trained."""
        self.consumed, self._before_consumed = self.delivered, self._before

    def _present(self, delivered: int, fetch_rng: rng.State | None) -> LoaderState:
        has_state = self.has_own_state and delivered == self.delivered
        return LoaderState(
            passes=self.passes,
            starts=self.starts,
            delivered=delivered,
            exhausted=self.exhausted,
            worker_seed=self.order.worker_seed,
            pass_start_rng=self.pass_start_rng,
            iterator_rng=self.iterator_rng,
            order_rng=self.order.rng,
            fetch_rng=fetch_rng,
            own_rng={},
            sampler_counts=self.order.counts(),
            sampler=_sampler_names(self.loader),
            has_workers=getattr(self.loader, "num_workers", 0) > 0,
            length=_length(self.loader),
            batch_size=getattr(self.loader, "batch_size", None),
            own_state=self.loader.state_dict() if has_state else None,
        )

    def resume_at(self, state: LoaderState, epoch: int) -> None:
        """Start the next pass in this state, and give samplers this epoch."""
        self._resumes_at = state, epoch

    def start_persistent_workers(self, state: LoaderState) -> None:
        """Start the workers that were running in this state. The global generators stay unchanged."""
        persistent = getattr(self.loader, "persistent_workers", False)
        if persistent and self.loader._iterator is None and state.iterator_rng is not None:
            self.iterator_rng = state.iterator_rng
            with rng.isolated(state.iterator_rng):
                self._iterate()

    def restore_generators(self, state: LoaderState, *, include_samplers: bool) -> None:
        """Restore the loader's own generators to their states when the checkpoint was saved.

        Those of its samplers, which draw the order, are left inside a pass: it has been drawn again.
        """
        if include_samplers:
            owned_rng.set_counts(self.loader, state.sampler_counts)
        in_data = ("dataset.", "collate_fn.")
        generators = {at: own for at, own in state.own_rng.items() if include_samplers or at.startswith(in_data)}
        owned_rng.restore(self.loader, generators)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        place, self._resumes_at = self._resumes_at, None
        return _CountingIterator(self, self._start() if place is None else self._resume(*place))

    def _start(self) -> Iterator[Any]:
        self.passes += 1
        self.starts += 1
        self.delivered = self.consumed = 0
        self.exhausted = False
        self.pass_start_rng = owned_rng.capture(self.loader)
        self.order.begin()
        if self.iterator_rng is None or getattr(self.loader, "_iterator", None) is None:
            self.iterator_rng = rng.capture()
        return self._iterate()

    def _resume(self, state: LoaderState, epoch: int) -> Iterator[Any]:
        self.passes, self.starts, self.exhausted = state.passes, state.starts, state.exhausted
        self.delivered = self.consumed = state.delivered
        self.pass_start_rng, self.iterator_rng = state.pass_start_rng, state.iterator_rng
        self.order.worker_seed, self.order.rng = state.worker_seed, state.order_rng
        owned_rng.restore(self.loader, state.pass_start_rng)
        set_sampler_epoch(self.loader, epoch)
        if state.iterator_rng is not None:
            rng.restore(state.iterator_rng)
        if self.has_own_state and state.own_state is not None:
            iterator = self._load(state.own_state)
        else:
            iterator = self._go_forward(state.delivered)
        if state.fetch_rng is not None:
            rng.restore(state.fetch_rng)
        return iterator

    def _load(self, state: Any) -> Iterator[Any]:
        """An iterator from the loader's own state; an empty one if the pass had ended, so that no new pass starts."""
        self.loader.load_state_dict(state)
        if not self.exhausted:
            return iter(self.loader)
        self.loader.state_dict()  # makes torchdata create its ended iterator now: later, its draws would count
        return iter(())

    def _go_forward(self, delivered: int) -> Iterator[Any]:
        """An iterator after this many batches: their indices are skipped, or they are read again and dropped."""
        if self._indices is not None:
            self._indices.skip = delivered if self.is_indexed else 0
        iterator = self._iterate()
        indices = self.indices
        if indices is None:
            self.order.restore()
        for _ in itertools.islice(iterator, 0 if self.is_indexed and indices is not None else delivered):
            pass
        if indices is not None:
            indices.start()
        return iterator

    def _iterate(self) -> Iterator[Any]:
        """The loader's own iterator, with ``IndexBatches`` between its sampler and its fetching."""
        if self._indices is None:
            return iter(self.loader)
        name = "batch_sampler" if self.loader.batch_sampler is not None else "sampler"
        self._indices.source = source = self.loader.__dict__[name]
        self._indices.is_read = False
        self.loader.__dict__[name] = self._indices  # DataLoader.__setattr__ forbids this assignment
        try:
            return iter(self.loader)
        finally:
            self.loader.__dict__[name] = source


class _CountingIterator:
    """Counts the batches that a loader delivers."""

    def __init__(self, position: LoaderPosition, iterator: Iterator[Any]) -> None:
        self._position = position
        self._iterator = iterator

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        position = self._position
        if position.order.rng is None and position.indices is None:
            position.order.note()
        try:
            batch = next(self._iterator)
        except StopIteration:
            position.exhausted = True
            raise
        position.delivered += 1
        return batch


def _has(thing: Any, method: str) -> bool:
    return callable(getattr(thing, method, None))


def _sampler_names(loader: Any) -> str:
    """The class names of what orders a loader's samples."""
    batches: Any = getattr(loader, "batch_sampler", None)
    parts: list[Any] = [loader.sampler if batches is None else batches] if isinstance(loader, DataLoader) else []
    parts += [batches.sampler] if hasattr(batches, "sampler") else []
    return " of ".join(type(part).__name__ for part in parts)


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None
