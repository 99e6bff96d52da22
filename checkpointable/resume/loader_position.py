"""One loader's place in its data, in batches that were delivered, and the way back to it.

An ordinary ``DataLoader`` goes back by its sampler: the order is drawn again from the random states of the time it was
drawn, the index batches that were delivered are skipped, and no data is read for them. Anything else that can only be
iterated is read forward.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from torch.utils.data import DataLoader, IterableDataset

from checkpointable.resume import owned_rng, rng
from checkpointable.resume.index_batches import IndexBatches, draws_at_once
from checkpointable.resume.state import LoaderState, OrderRng


class LoaderPosition:
    """A loader, as a loop goes through it, pass after pass.

    Args:
        loader: Anything that can be iterated.

    Attributes:
        ahead: Whether Lightning fetches one batch ahead, as it does where it knows no length.
        starts: How often it was started since its loop's pass began: shorter loaders may start over in between.
        exhausted: Whether it has said that there is no more batch, since it was started last.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.ahead = False
        self.passes = self.starts = 0
        self.delivered = 0
        self.consumed = 0
        self.exhausted = False
        self.worker_seed = 0
        self.iterator_rng: Mapping[str, Any] | None = None
        self.order_rng: OrderRng | None = None
        self.pass_start_rng: Mapping[str, Any] = {}
        self._resume_state: LoaderState | None = None
        self._first_counts = owned_rng.counts(loader)
        self._before: LoaderState | None = None
        self._before_consumed: LoaderState | None = None
        self._indices = IndexBatches(self) if isinstance(loader, DataLoader) and not has_own_state(loader) else None

    def state(self, *, consumed_only: bool) -> LoaderState:
        """Where this loader stands.

        Args:
            consumed_only: Whether a batch that was fetched since the last safe point counts as not delivered.
        """
        before = self._before_consumed if consumed_only else self._before
        if self.ahead and before is not None:
            return before
        return self._present(self.consumed if consumed_only else self.delivered, fetch_rng=None)

    def look_ahead(self, fetch_rng: rng.State) -> None:
        """A batch is about to be fetched that is used one batch later: until then, this is where the loader stands.

        Args:
            fetch_rng: The states of the global generators.
        """
        self._before = self._present(self.delivered, fetch_rng)

    @property
    def may_have_drawn(self) -> bool:
        """Whether a fetch since the last safe point may draw in this process: not while it waits for a worker."""
        indices = self._indices
        if indices is None or not self.loader.num_workers or not _has_indices(self.loader):
            return True
        return self.delivered != self.consumed or not draws_at_once(indices.source)

    def mark_consumed(self) -> None:
        """At a safe point: what was delivered has been used."""
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
        """Start the next pass where an earlier run stood."""
        self._resume_state = state
        self._epoch = epoch

    _epoch = 0

    def start_persistent_workers(self, iterator_rng: Mapping[str, Any]) -> None:
        """Make the iterator that lives as long as the loader, as it was made at ``iterator_rng``."""
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
        _set_sampler_epoch(self.loader, self._epoch)
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
        """An iterator from its own place on; an empty one if it had ended: its own would start the next pass."""
        self.loader.load_state_dict(state)
        if not self.exhausted:
            return iter(self.loader)
        self.loader.state_dict()  # or torchdata's makes the iterator that has ended later, and draws when it does
        return iter(())

    def note_draw(self) -> None:
        """The order of a pass is about to be drawn: from these states of the global generators, and of its own."""
        own = owned_rng.capture(self.loader)
        self.order_rng = OrderRng(global_rng=rng.capture(), own_rng=own, sampler_counts=self._counts())

    def _counts(self) -> dict[str, int]:
        """Only what has changed in this run: the rest is how the sampler was made."""
        return {at: n for at, n in owned_rng.counts(self.loader).items() if self._first_counts.get(at) != n}

    def draw_again(self, order_rng: OrderRng) -> None:
        """Let it be drawn again. Making the iterator has drawn a seed in between, where the earlier run had one."""
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
        """The loader's own iterator, its indices coming through ours."""
        if self._indices is None:
            return iter(self.loader)
        name = "batch_sampler" if self.loader.batch_sampler is not None else "sampler"
        theirs = self.loader.__dict__[name]
        self._indices.source = theirs
        self.loader.__dict__[name] = self._indices  # past DataLoader.__setattr__, which forbids to change it for good
        try:
            return iter(self.loader)
        finally:
            self.loader.__dict__[name] = theirs


class _CountingIterator:
    """Counts the batches that leave a loader."""

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
    """Whether a loader keeps its own place, and a place that we cannot keep for it."""
    stateful = callable(getattr(loader, "state_dict", None)) and callable(getattr(loader, "load_state_dict", None))
    return stateful and not _has_indices(loader)


def carries_state(loader: Any) -> bool:
    """Whether it is a loader like torchdata's, with a data set whose state may outlive a pass."""
    return (
        isinstance(loader, DataLoader)
        and has_own_state(loader)
        and callable(getattr(loader.dataset, "state_dict", None))
    )


def _has_indices(loader: Any) -> bool:
    """Whether it is a ``DataLoader`` that goes through a data set by index."""
    return isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)


def _sampler_names(loader: Any) -> str:
    """What orders a loader's samples."""
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
    """The number that a loader's iterator would draw as its base seed, without drawing it."""
    if generator is None:
        with rng.isolated():
            return int(torch.empty((), dtype=torch.int64).random_().item())
    before = generator.get_state()
    try:
        return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())
    finally:
        generator.set_state(before)
