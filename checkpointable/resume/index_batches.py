"""The index batches of a ``DataLoader``: drawn in the same order again, skipped, and sent to workers with a seed."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import BatchSampler, IterableDataset
from torch.utils.data import sampler as samplers
from torch.utils.data.distributed import DistributedSampler

from checkpointable.resume import rng
from checkpointable.resume.owned_rng import Owners
from checkpointable.resume.sampler_state import Held
from checkpointable.resume.state import LoaderState, OrderRng
from checkpointable.resume.worker_seeds import SeededIndices
from checkpointable.storage.format.same import same

_TORCHDATA = "torchdata.stateful_dataloader.sampler"
_DRAW_AT_ONCE = {
    *(BatchSampler, DistributedSampler, samplers.RandomSampler, samplers.SequentialSampler),
    *(samplers.SubsetRandomSampler, samplers.WeightedRandomSampler),
}


class Order:
    """From which states a pass over a loader draws the order of its samples, and seeds its batches."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.owners = Owners(loader)
        self.held = Held(loader)
        self.rng: OrderRng | None = None
        self.worker_seed = 0
        self.shared: set[str] = set()  # generators of the order that something else draws from in between, too
        self._drawn_from: set[str] = set()
        self._before: dict[str, Any] = {}  # the states of all generators at the latest draw of the order
        self._after: dict[str, Any] = {}

    def begin(self) -> None:
        """A pass begins, whose order is not drawn yet."""
        self.rng, self.shared = None, set()
        self.worker_seed = _next_worker_seed(getattr(self.loader, "generator", None))

    def resume(self, state: LoaderState) -> None:
        """A pass begins where this one stood. Its order is drawn again."""
        self.rng, self.shared, self.worker_seed = state.order_rng, set(state.shared), state.worker_seed
        self.owners.restore(state.pass_start_rng)

    def note(self) -> None:
        """The order is about to be drawn."""
        self.rng = OrderRng(global_rng=rng.capture(), own_rng=self.owners.capture(), held=self.held.capture())

    def watch(self) -> None:
        """The order is drawn from now on, perhaps bit by bit."""
        self._drawn_from, self._after = set(), {}

    def note_other_draws(self) -> set[str]:
        """Before the next bit is drawn: note and return the generators that something else has drawn from since."""
        self._before = self.owners.states()
        self.shared |= self._drawn_from & _changed(self._after, self._before)
        return self.shared

    def note_draw(self) -> None:
        """After a bit of the order is drawn."""
        self._after = self.owners.states()
        self._drawn_from |= _changed(self._before, self._after)

    def restore(self) -> None:
        """Restore the states before the draw, if it was noted: making the iterator has drawn a seed since."""
        if self.rng is not None:
            rng.restore(self.rng.global_rng)
            self.owners.restore(self.rng.own_rng)
            self.held.restore(self.rng.held)


class IndexBatches:
    """Replaces a loader's batch sampler while an iterator is made: notes the draw, skips batches, and seeds workers.

    The iterator holds a reference to it. It holds only a weak one to the order, which holds the loader, which may hold
    the iterator: worker processes end when their iterator is freed, and a reference cycle would be freed at any time,
    even in a forked process. A loader is read by one iterator at a time, so that it keeps the place of the latest.

    Attributes:
        source: The sampler that it replaces.
        skip: How many batches to skip in the next pass, whose order is drawn again; ``None``: its order is a new one.
        is_read: Whether the latest iterator reads it: none does if a subclass's ``__iter__`` is a generator.
        draws_at_once: Whether the latest order is drawn when it begins; see the function of that name.
        number: How many batches of indices the latest iterator has drawn, with those that it skipped.
    """

    stands_for_source = True

    def __init__(self, order: Order) -> None:
        self._order: Order = weakref.proxy(order)
        self.source: Any = None
        self.skip: int | None = None
        self.is_read = True
        self._indices: Iterator[Any] | None = None
        self.draws_at_once = True
        self._seeds_workers = False
        self.number = 0
        self._own: rng.State | None = None

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Any]:
        self._indices, self.number, self._own = None, 0, None
        self.is_read = True
        return self

    def __next__(self) -> Any:
        if self._indices is None:
            self.start()
        indices = self._draw()
        if self._seeds_workers:
            return SeededIndices(indices, rng.derive_seed(self._order.worker_seed, self.number - 1))
        return indices

    @property
    def may_draw(self) -> bool:
        """Whether the next batch may be drawn. From a generator of its own, torch's sampler draws again at its end."""
        inner = getattr(self.source, "sampler", self.source)
        return not draws_at_once(self.source) or getattr(inner, "generator", None) is not None

    def start(self) -> None:
        """Draw the order, and skip the batches that were delivered before. Later calls in this pass do nothing."""
        if self._indices is not None:
            return
        skipped, self.skip = self.skip, None
        if skipped is None:
            self._order.note()
        else:
            self._order.restore()
        self._seeds_workers = self._order.loader.num_workers > 0
        self.draws_at_once = isinstance(self._order.loader.dataset, IterableDataset) or draws_at_once(self.source)
        self._order.watch()
        self._indices = iter(self.source)  # may draw the whole order at once
        with contextlib.suppress(StopIteration):
            for _ in range(skipped or 0):
                self._draw()

    def _draw(self) -> Any:
        """The next index batch.

        A sampler that may draw from the global generators at any batch continues from the states of its own previous
        draw. So the draws of the training in between do not change the order when it is drawn again.
        """
        assert self._indices is not None
        if self.draws_at_once:
            indices = next(self._indices)
        else:
            self._order.note_other_draws()
            with contextlib.nullcontext() if self._own is None else rng.isolated(self._own):
                indices = next(self._indices)
                self._own = rng.capture()
            self._order.note_draw()
        self.number += 1
        return indices


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    return {at for at, state in after.items() if at in before and not same(before[at], state)}


def draws_at_once(source: Any) -> bool:
    """Whether a sampler draws from generators only when its order begins.

    With a generator that it is given, torch's ``RandomSampler`` draws some samples at a time if they may come twice.
    """
    inner = getattr(source, "sampler", source)
    if not all(type(it) in _DRAW_AT_ONCE or type(it).__module__ == _TORCHDATA for it in (source, inner)):
        return False
    if type(inner).__name__ != "RandomSampler" or inner.generator is None:
        return True
    return not inner.replacement and inner.num_samples <= len(inner.data_source)


def _next_worker_seed(generator: torch.Generator | None) -> int:
    """The base seed that a loader's iterator is about to draw, with the generator left unchanged."""
    drawn_from = torch.default_generator if generator is None else generator
    before = drawn_from.get_state()
    try:
        return int(torch.empty((), dtype=torch.int64).random_(generator=drawn_from).item())
    finally:
        drawn_from.set_state(before)
