"""One loader's position in its data, counted in delivered batches, and the return to it.

An ordinary ``DataLoader`` returns through its sampler: the order is drawn again from the same random states, and the
index batches that were delivered are skipped without reading any data. A loader with a ``state_dict`` gets its state
back. Of any other loader, the delivered batches are read again and dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from checkpointable.lightning_internals.tree import set_sampler_epoch
from checkpointable.resume import owned_rng, rng
from checkpointable.resume.index_batches import IndexBatches, draws_at_once
from checkpointable.resume.state import LoaderState, OrderRng


class LoaderPosition:
    """Iterates over a loader, counts the batches, and can start a pass where an earlier run stood.

    Args:
        loader: Anything that can be iterated.

    Attributes:
        ahead: Whether Lightning fetches one batch ahead, which it does for loaders without a length.
        delivered: Batches delivered in this pass.
        consumed: Of these, the batches that had been trained at the last safe point.

    The other attributes are those of ``LoaderState``.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.ahead = False
        self.passes = self.starts = 0
        self.delivered = self.consumed = 0
        self.exhausted = False
        self.worker_seed = 0
        self.iterator_rng: Mapping[str, Any] | None = None
        self.order_rng: OrderRng | None = None
        self.pass_start_rng: Mapping[str, Any] = {}
        self._resume_state: LoaderState | None = None
        self._epoch = 0
        self._first_counts = owned_rng.counts(loader)
        self._before: LoaderState | None = None
        self._before_consumed: LoaderState | None = None
        self._indices = IndexBatches(self) if isinstance(loader, DataLoader) and not has_own_state(loader) else None

    def state(self, *, consumed_only: bool) -> LoaderState:
        """Where this loader stands, without the present states of its own generators.

        Args:
            consumed_only: Count only the batches that were trained at the last safe point.
        """
        before = self._before_consumed if consumed_only else self._before
        if self.ahead and before is not None:
            return before
        return self._present(self.consumed if consumed_only else self.delivered, fetch_rng=None)

    def look_ahead(self, fetch_rng: rng.State) -> None:
        """Note the state before Lightning fetches a batch ahead. Until the next fetch, this state is saved.

        Args:
            fetch_rng: The states of the global generators.
        """
        self._before = self._present(self.delivered, fetch_rng)

    @property
    def may_have_drawn(self) -> bool:
        """Whether a fetch since the last safe point may have drawn in this process, and not only in a worker."""
        indices = self._indices
        if indices is None or not self.loader.num_workers or not _has_indices(self.loader):
            return True
        return self.delivered != self.consumed or not draws_at_once(indices.source)

    def mark_consumed(self) -> None:
        """Note at a safe point that all delivered batches have been trained."""
        self.consumed, self._before_consumed = self.delivered, self._before

    def _present(self, delivered: int, fetch_rng: rng.State | None) -> LoaderState:
        has_state = has_own_state(self.loader) and delivered == self.delivered
        return LoaderState(
            passes=self.passes,
            starts=self.starts,
            delivered=delivered,
            exhausted=self.exhausted,
            worker_seed=self.worker_seed,
            pass_start_rng=self.pass_start_rng,
            iterator_rng=self.iterator_rng,
            order_rng=self.order_rng,
            fetch_rng=fetch_rng,
            own_rng={},
            sampler_counts=self._counts(),
            sampler=_sampler_names(self.loader),
            has_workers=getattr(self.loader, "num_workers", 0) > 0,
            length=_length(self.loader),
            batch_size=getattr(self.loader, "batch_size", None),
            own_state=self.loader.state_dict() if has_state else None,
        )

    def resume_at(self, state: LoaderState, epoch: int) -> None:
        """Start the next pass in this state, and give samplers this epoch."""
        self._resume_state = state
        self._epoch = epoch

    def start_persistent_workers(self, iterator_rng: Mapping[str, Any]) -> None:
        """Make the iterator of persistent workers from the generator states in which it was first made."""
        persistent = getattr(self.loader, "persistent_workers", False)
        if persistent and self.loader._iterator is None:
            self.iterator_rng = iterator_rng
            with rng.isolated(iterator_rng):
                self._iterate()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        state, self._resume_state = self._resume_state, None
        return self._start() if state is None else self._resume(state)

    def _start(self) -> Iterator[Any]:
        self.passes += 1
        self.starts += 1
        self.delivered = self.consumed = 0
        self.order_rng, self.exhausted = None, False
        self.pass_start_rng = owned_rng.capture(self.loader)
        self.worker_seed = _next_worker_seed(getattr(self.loader, "generator", None))
        if self.iterator_rng is None or getattr(self.loader, "_iterator", None) is None:
            self.iterator_rng = rng.capture()
        return _CountingIterator(self, self._iterate())

    def _resume(self, state: LoaderState) -> Iterator[Any]:
        self.passes, self.starts, self.exhausted = state.passes, state.starts, state.exhausted
        self.delivered = self.consumed = state.delivered
        self.worker_seed, self.pass_start_rng = state.worker_seed, state.pass_start_rng
        self.iterator_rng, self.order_rng = state.iterator_rng, state.order_rng
        owned_rng.restore(self.loader, self.pass_start_rng)
        set_sampler_epoch(self.loader, self._epoch)
        if self.iterator_rng is not None:
            rng.restore(self.iterator_rng)
        if has_own_state(self.loader) and state.own_state is not None:
            iterator = self._load(state.own_state)
        elif self._indices is not None and _has_indices(self.loader):
            self._indices.skip(state.delivered, self.order_rng)
            iterator = self._iterate()
            self._indices.start()
        else:
            iterator = self._read_forward(state.delivered)
        if state.fetch_rng is not None:
            rng.restore(state.fetch_rng)
        return _CountingIterator(self, iterator)

    def _load(self, state: Any) -> Iterator[Any]:
        """An iterator from the loader's own state; an empty one if the pass had ended, so that no new pass starts."""
        self.loader.load_state_dict(state)
        if not self.exhausted:
            return iter(self.loader)
        self.loader.state_dict()  # makes torchdata create its ended iterator now: later, its draws would count
        return iter(())

    def note_draw(self) -> None:
        """Note the generator states from which the order of this pass is about to be drawn."""
        own = owned_rng.capture(self.loader)
        self.order_rng = OrderRng(global_rng=rng.capture(), own_rng=own, sampler_counts=self._counts())

    def _counts(self) -> dict[str, int]:
        """The samplers' counts that have changed in this run. The others are as the script made them."""
        return {at: n for at, n in owned_rng.counts(self.loader).items() if self._first_counts.get(at) != n}

    def draw_again(self, order_rng: OrderRng) -> None:
        """Restore the generator states of the draw: making the iterator has drawn a seed since."""
        rng.restore(order_rng.global_rng)
        owned_rng.restore(self.loader, order_rng.own_rng)
        owned_rng.set_counts(self.loader, order_rng.sampler_counts)

    def _read_forward(self, skipped: int) -> Iterator[Any]:
        if self._indices is not None:
            self._indices.skip(0, self.order_rng)
        iterator = self._iterate()
        if self._indices is None and self.order_rng is not None:
            self.draw_again(self.order_rng)
        for _ in itertools.islice(iterator, skipped):
            pass
        if self._indices is not None:
            self._indices.start()
        return iterator

    def _iterate(self) -> Iterator[Any]:
        """The loader's own iterator, with ``IndexBatches`` between its sampler and its fetching."""
        if self._indices is None:
            return iter(self.loader)
        name = "batch_sampler" if self.loader.batch_sampler is not None else "sampler"
        self._indices.source = source = self.loader.__dict__[name]
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
        if position.order_rng is None and position._indices is None:
            position.note_draw()
        try:
            batch = next(self._iterator)
        except StopIteration:
            position.exhausted = True
            raise
        position.delivered += 1
        return batch


def has_own_state(loader: Any) -> bool:
    """Whether a loader keeps its own position, and is not one that returns through its sampler."""
    stateful = callable(getattr(loader, "state_dict", None)) and callable(getattr(loader, "load_state_dict", None))
    return stateful and not _has_indices(loader)


def carries_state(loader: Any) -> bool:
    """Whether it is a loader like torchdata's, over a data set whose state may outlast a pass."""
    return (
        isinstance(loader, DataLoader)
        and has_own_state(loader)
        and callable(getattr(loader.dataset, "state_dict", None))
    )


def _has_indices(loader: Any) -> bool:
    """Whether it is a ``DataLoader`` that reads its data set by index."""
    return isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)


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


def _next_worker_seed(generator: torch.Generator | None) -> int:
    """The base seed that a loader's iterator is about to draw, with the generator left unchanged."""
    if generator is None:
        with rng.isolated():
            return int(torch.empty((), dtype=torch.int64).random_().item())
    before = generator.get_state()
    try:
        return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())
    finally:
        generator.set_state(before)
