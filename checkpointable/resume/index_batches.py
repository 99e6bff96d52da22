"""The index batches of a ``DataLoader``: drawn in the same order again, skipped, and sent to workers with a seed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Protocol

from torch.utils.data import BatchSampler, get_worker_info
from torch.utils.data import sampler as samplers
from torch.utils.data.distributed import DistributedSampler

from checkpointable.resume import owned_rng, rng
from checkpointable.resume.state import OrderRng

_DRAW_AT_ONCE = {
    *(BatchSampler, DistributedSampler, samplers.RandomSampler, samplers.SequentialSampler),
    *(samplers.SubsetRandomSampler, samplers.WeightedRandomSampler),
}


class Order(Protocol):
    """Notes and repeats the draw of an order; a ``LoaderPosition`` does."""

    loader: Any
    worker_seed: int

    def note_draw(self) -> None:
        """The order of a pass is about to be drawn."""

    def draw_again(self, order_rng: OrderRng) -> None:
        """Restore the states from which the order was drawn."""


class IndexBatches:
    """Replaces a loader's batch sampler while an iterator is made: notes the draw, skips batches, and seeds workers.

    The iterator holds a reference to it. It holds only a weak one to the order, which holds the loader, which may hold
    the iterator: worker processes end when their iterator is freed, and a reference cycle would be freed at any time,
    even in a forked process.
    """

    stands_for_source = True

    def __init__(self, order: Order) -> None:
        self._order: Order = weakref.proxy(order)
        self.source: Any = None
        self._latest: _IndexIterator | None = None
        self._skip: tuple[int, OrderRng | None] | None = None

    def skip(self, batches: int, order_rng: OrderRng | None) -> None:
        """In the next pass, draw the order from these states, and skip this many batches."""
        self._skip = batches, order_rng

    def start(self) -> None:
        """Skip now if the iterator has not fetched yet. Later passes skip nothing."""
        if self._latest is not None:
            self._latest.start()
        self._skip = None

    def __iter__(self) -> Iterator[Any]:
        self._latest = _IndexIterator(self._order, self.source, self._skip)
        return self._latest

    def __len__(self) -> int:
        return len(self.source)


class _IndexIterator:
    def __init__(self, order: Order, source: Any, skip: tuple[int, OrderRng | None] | None) -> None:
        self._order = order
        self._source = source
        self._skip = skip
        self._indices: Iterator[Any] | None = None
        self._number = 0
        self._seeds = order.loader.num_workers > 0
        self._own: rng.State | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.start()
        indices = self._draw()
        if self._seeds:
            return SeededIndices(indices, rng.derive_seed(self._order.worker_seed, self._number - 1))
        return indices

    def start(self) -> None:
        """Draw the order, and skip the batches that were delivered before. Later calls do nothing."""
        if self._indices is not None:
            return
        batches, order_rng = self._skip or (0, None)
        if self._skip is None:
            self._order.note_draw()
        elif order_rng is not None:
            self._order.draw_again(order_rng)
        self._indices = iter(self._source)  # may draw the whole order at once
        for _ in range(batches):
            try:
                self._draw()
            except StopIteration:
                return

    def _draw(self) -> Any:
        """The next index batch.

        A sampler that may draw from the global generators at any batch continues from the states of its own previous
        draw. So the draws of the training in between do not change the order when it is drawn again.
        """
        assert self._indices is not None
        if draws_at_once(self._source):
            indices = next(self._indices)
        elif self._own is None:
            indices = next(self._indices)
            self._own = rng.capture()
        else:
            with rng.isolated(self._own):
                indices = next(self._indices)
                self._own = rng.capture()
        self._number += 1
        return indices


class SeededIndices:
    """Indices for a worker process. Unpickling gives the plain indices, and seeds the worker for this batch.

    So the random numbers of a batch depend on the run's seed and the batch's number only: not on the number of workers,
    nor on the batches that a worker had before.
    """

    def __init__(self, indices: Any, seed: int) -> None:
        self.indices = indices
        self.seed = seed

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpack, (self.indices, self.seed))


def _unpack(indices: Any, seed: int) -> Any:
    rng.seed_worker(seed)
    worker = get_worker_info()
    if worker is not None:
        owned_rng.seed(worker.dataset, seed)
    return indices


def draws_at_once(source: Any) -> bool:
    """Whether a sampler draws from the global generators only when its order begins."""
    inner = getattr(source, "sampler", source)
    return type(source) in _DRAW_AT_ONCE and type(inner) in _DRAW_AT_ONCE
