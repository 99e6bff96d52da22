"""One loader's position in its data, counted in delivered batches, and the return to it.

An ordinary ``DataLoader`` returns through its sampler: the order is drawn again from the same random states, and the
index batches that were delivered are skipped without reading any data. A loader with a ``state_dict`` gets its state
back. Of any other loader, the delivered batches are read again and dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from checkpointable.lightning_internals.tree import set_sampler_epoch
from checkpointable.resume import dealing, rng
from checkpointable.resume.dealing import Rest
from checkpointable.resume.index_batches import IndexBatches, Order
from checkpointable.resume.loader_identity import identity, length_of
from checkpointable.resume.own_state import OwnState
from checkpointable.resume.owned_rng import IN_DATA
from checkpointable.resume.pass_length import PassLength
from checkpointable.resume.state import LoaderState
from checkpointable.resume.worker_seeds import SeededCollate


class LoaderPosition:
    """Iterates over a loader, counts the batches, and can start a pass where an earlier run stood.

    Attributes:
        is_indexed: Whether it is a ``DataLoader`` that reads its data set by index.
        own: The state that the loader or its data set keeps itself.
        length: How many batches its passes have.
        ahead: Whether Lightning fetches one batch ahead, which it does for loaders without a length.
        is_fetching: Whether a batch is being fetched, also after an exception has ended that.
        rest: The rest of this pass, if it began on another number of ranks.
        consumed: Of the delivered batches, those that had been trained at the last safe point.

    The other attributes are those of ``LoaderState``.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        is_torch = isinstance(loader, DataLoader)
        self.is_indexed = is_torch and not isinstance(loader.dataset, IterableDataset)
        self.own = OwnState(loader)
        self.ahead = False
        self.passes = self.starts = 0
        self.delivered = self.consumed = 0
        self.exhausted = self.is_fetching = self._idles = False
        self.length = PassLength()
        self.first_draws: bool | None = None
        self.iterator_rng: Mapping[str, Any] | None = None
        self.pass_start_rng: Mapping[str, Any] = {}
        self.order = Order(loader)
        self._has_searched = False
        self._identity = identity(loader)
        self._indices = IndexBatches(self.order) if is_torch and (self.is_indexed or not self.own.of_loader) else None
        self._collate: SeededCollate | None = None
        self._place: tuple[LoaderState, int, bool, Rest | None] | None = None
        self.rest: Rest | None = None
        self._workers_rng: Mapping[str, Any] | None = None
        self._before: dict[str, Any] | None = None
        self._before_consumed: dict[str, Any] | None = None

    @property
    def indices(self) -> IndexBatches | None:
        """The index batches that the latest iterator reads, if it does."""
        return self._indices if self._indices is not None and self._indices.is_read else None

    def state(self, *, consumed_only: bool) -> LoaderState:
        """Where this loader stands; ``consumed_only``: with the batches trained at the last safe point."""
        moment = self._before_consumed if consumed_only else self._before
        if moment is None or not self.ahead:
            moment = self._moment(self.consumed if consumed_only else self.delivered, fetch_rng=None)
        return LoaderState(
            **moment,
            **self._identity,
            own_rng=self.order.owners.capture(),
            held_unknown=self.order.held.unknown(),
            length=length_of(self.loader),
            full=self.length.full,
            dealt=dealing.of_loader(self.loader, dealing.number_of_ranks()) if self.rest is None else self.rest.dealt,
            first_draws=self.first_draws,
            has_late_generators=self._collate is not None and self._collate.has_late_generators,
            shared=sorted(self.order.note_other_draws()),
        )

    def look_ahead(self, fetch_rng: rng.State) -> None:
        """Note the state before Lightning fetches a batch ahead. Until the next fetch, this state is saved."""
        self._before = self._moment(self.delivered, fetch_rng)

    @property
    def may_have_drawn(self) -> bool:
        """Whether a fetch since the last safe point may have drawn in this process, and not only in a worker."""
        indices = self.indices
        if indices is None or not self.is_indexed or not self.loader.num_workers:
            return True
        return self.delivered != self.consumed or indices.may_draw

    def mark_consumed(self) -> None:
        """Note at a safe point that all delivered batches have been trained."""
        self.consumed, self._before_consumed = self.delivered, self._before

    def _moment(self, delivered: int, fetch_rng: rng.State | None) -> dict[str, Any]:
        """What each batch changes in the state."""
        return {
            "passes": self.passes,
            "starts": self.starts,
            "delivered": delivered,
            "exhausted": self.exhausted,
            "worker_seed": self.order.worker_seed,
            "pass_start_rng": self.pass_start_rng,
            "iterator_rng": self.iterator_rng,
            "order_rng": self.order.rng,
            "fetch_rng": fetch_rng,
            "held": self.order.held.capture(),
            "held_digests": self.order.held.digests(),
            "own_state": self.own.capture() if delivered == self.delivered else None,
            "in_step": self._in_step(),
        }

    def _in_step(self) -> bool | None:
        """Whether the iterator has drawn index batches for those that it delivered, and for those workers read."""
        indices = self.indices
        if indices is None or not self.is_indexed:
            return None
        in_workers: int = self.loader.num_workers * (self.loader.prefetch_factor or 0)
        drawn = indices.number + (0 if self.rest is None else self.rest.dealt.batches)
        return 0 <= drawn - self.delivered <= in_workers + self.is_fetching

    def resume_at(self, state: LoaderState, epoch: int, *, inside: bool, rest: Rest | None = None) -> None:
        """Start the next pass in this state, and give samplers this epoch; not ``inside``: another pass follows it."""
        self._place = state, epoch, inside, rest

    def expect(self, state: LoaderState, *, more: bool, idle: bool) -> None:
        """Expect passes as long as this state says; ``idle``: the next pass is begun only to be begun again.

        The pass after an idle one starts persistent workers, which are running already in the uninterrupted run.
        """
        self.length.expect(state, more=more)
        self._idles = idle and not self.is_indexed and self._place is None
        persistent = self._idles and getattr(self.loader, "persistent_workers", False)
        self._workers_rng = state.iterator_rng if persistent else None

    def start_persistent_workers(self, state: LoaderState) -> None:
        """Start the workers that were running in this state. The global generators stay unchanged."""
        persistent = getattr(self.loader, "persistent_workers", False)
        if persistent and self.loader._iterator is None and state.iterator_rng is not None:
            self.iterator_rng = state.iterator_rng
            with rng.isolated(state.iterator_rng):
                self._iterate()

    def restore_generators(self, state: LoaderState, *, include_samplers: bool) -> None:
        """Restore the loader's own generators to their states when the checkpoint was saved.

        Those of its samplers are left inside a pass whose order they go on to draw: so far it has been drawn again.
        """
        if include_samplers:
            self.order.held.restore(state.held)
        drawn = include_samplers or (self.rest is None and self.indices is not None and self.indices.draws_at_once)
        generators = {at: own for at, own in state.own_rng.items() if drawn or at.startswith(IN_DATA)}
        self.order.owners.restore(generators)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        place, self._place = self._place, None
        idles, self._idles = self._idles, False
        if idles:  # reading from a queue or a socket could not be undone
            return iter(())
        return _CountingIterator(self, self._start() if place is None else self._resume(*place))

    def _start(self) -> Iterator[Any]:
        self.rest = None
        self.passes += 1
        self.starts += 1
        self.delivered = self.consumed = 0
        self.exhausted = False
        self.length.start()
        self.own.start_pass()
        self.pass_start_rng = self.order.owners.capture()
        self.order.begin()
        if self._workers_rng is not None and self.loader._iterator is None:
            self.iterator_rng, self._workers_rng = self._workers_rng, None
            with rng.isolated(self.iterator_rng):
                return self._iterate()
        if self.iterator_rng is None or getattr(self.loader, "_iterator", None) is None:
            self.iterator_rng = rng.capture()
        return self._iterate()

    def _resume(self, state: LoaderState, epoch: int, inside: bool, rest: Rest | None) -> Iterator[Any]:
        self.rest = rest
        self.passes, self.starts, self.exhausted = state.passes, state.starts, state.exhausted
        self.delivered = self.consumed = state.delivered
        self.pass_start_rng, self.iterator_rng = state.pass_start_rng, state.iterator_rng
        self.first_draws = state.first_draws
        self.length.resume(state.delivered)
        self.order.resume(state)
        set_sampler_epoch(self.loader, epoch)
        if state.iterator_rng is not None:
            rng.restore(state.iterator_rng)
        if self.own.of_loader and state.own_state is not None:
            iterator = self._load(state, ended=state.exhausted if inside or self.own.is_torchdata else state.has_ended)
        else:
            iterator = self._go_forward(state.delivered if rest is None else rest.skip)
            self.own.load_data(state.own_state)
        if state.fetch_rng is not None:
            rng.restore(state.fetch_rng)
        return iterator

    def _load(self, state: LoaderState, *, ended: bool) -> Iterator[Any]:
        """An iterator from the loader's own state; its order is drawn again from the saved states."""
        if self._indices is not None:
            self._indices.skip = 0
        iterator = self.own.load(state.own_state, self._iterate, ended=ended)
        if self.indices is None:
            self.order.restore()
        return iterator

    def _go_forward(self, delivered: int) -> Iterator[Any]:
        """An iterator after this many batches: their indices are skipped, or they are read again and dropped."""
        if self._indices is not None:
            ended = self.exhausted and self.rest is None  # torch's sampler has drawn once more after its last index
            self._indices.skip = delivered + ended if self.is_indexed else 0
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
        attributes = self.loader.__dict__
        name = "batch_sampler" if self.loader.batch_sampler is not None else "sampler"
        source, collate_fn = attributes[name], attributes["collate_fn"]
        self._indices.source, self._indices.is_read = source if self.rest is None else self.rest.batches, False
        attributes[name] = self._indices  # DataLoader.__setattr__ forbids this assignment
        if self.loader.num_workers:
            if self._collate is None or self._collate.source is not collate_fn:
                self._collate = SeededCollate(collate_fn)
            attributes["collate_fn"] = self._collate
        try:
            return iter(self.loader)
        finally:
            attributes[name], attributes["collate_fn"] = source, collate_fn

    def note_first(self) -> None:
        """After the first batch of an iterator: look for generators that it made, and whether it drew numbers."""
        if not self._has_searched:
            self._has_searched = True
            self.order.owners.search()
        if self.delivered == 1 and self.own.of_loader and self.indices is None and self.order.rng is not None:
            self.first_draws = rng.differ(self.order.rng.global_rng, rng.capture())

    def end_pass(self) -> None:
        """After the last batch of a pass."""
        if not self.exhausted:
            self.exhausted = True
            self.length.end(self.loader, self.delivered)


class _CountingIterator:
    """Counts the batches that a loader delivers."""

    def __init__(self, position: LoaderPosition, iterator: Iterator[Any]) -> None:
        self._position = position
        self._iterator = iterator
        self._is_first = True

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        position = self._position
        if position.order.rng is None and position.indices is None:
            position.order.note()
        position.is_fetching = True
        try:
            batch = next(self._iterator)
        except StopIteration:
            position.is_fetching = False
            position.end_pass()
            raise
        position.is_fetching = False
        position.delivered += 1
        if self._is_first:
            self._is_first = False
            position.note_first()
        if position.order.owners.waiting:
            position.order.owners.give_waiting()
        return batch
