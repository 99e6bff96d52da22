"""The rest of a pass on another number of ranks: each sample once, by counting."""

from __future__ import annotations

import itertools
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, WeightedRandomSampler
from torch.utils.data.distributed import DistributedSampler

from checkpointable.resume import dealing, rng
from checkpointable.resume.state import OrderRng

RANKS = (1, 2, 3, 4, 8)


def loader(samples: int, rank: int, ranks: int, batch_size: int, *, drop_last: bool, epoch: int = 3) -> DataLoader:
    """As Lightning makes it on one rank: alone it has torch's own sampler."""
    if ranks == 1:
        return DataLoader(range(samples), batch_size, shuffle=True, drop_last=drop_last)
    sampler = DistributedSampler(range(samples), ranks, rank, seed=7)
    sampler.set_epoch(epoch)
    return DataLoader(range(samples), batch_size, sampler=sampler, drop_last=drop_last)


def trainer(rank: int, ranks: int, limit: float = 1.0) -> Any:
    """As much of a trainer as is asked."""
    return SimpleNamespace(global_rank=rank, world_size=ranks, limit_train_batches=limit)


def trained(loaders: list[DataLoader], batches: int) -> tuple[list[int], Any]:
    """The samples in the first batches of all ranks, and the state that is saved after them."""
    drawn = OrderRng(global_rng=rng.capture(), own_rng={}, held={})
    seen = [i for one in loaders for batch in itertools.islice(one.batch_sampler, batches) for i in batch]
    first = loaders[0]
    dealt = dealing.of_loader(first, len(loaders))
    state = {"dealt": dealt, "delivered": batches, "batch_size": first.batch_size, "order_rng": drawn}
    return seen, SimpleNamespace(**state, length=len(first))


def rests(loaders: list[DataLoader], saved: Any, ranks: int) -> list[dealing.Rest]:
    return [dealing.rest(trainer(r, len(loaders)), [one], [saved], ranks) for r, one in enumerate(loaders)]


def after(state: Any, rest: dealing.Rest, batches: int, loader: DataLoader) -> Any:
    """The state that is saved after so many batches of a rest."""
    return SimpleNamespace(
        dealt=rest.dealt, delivered=rest.delivered + batches, batch_size=loader.batch_size,
        order_rng=state.order_rng, length=len(loader),
    )  # fmt: skip


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("before", RANKS)
def test_each_sample_is_trained_once_on_any_other_number_of_ranks(before, drop_last):
    cases = itertools.product((96, 97, 61), [it for it in RANKS if it != before], (1, 4), (2, 4), (1, 2, 5))
    for samples, now, batch_size, other_size, batches in cases:
        loaders = [loader(samples, r, before, batch_size, drop_last=drop_last) for r in range(before)]
        if batches >= len(loaders[0]):
            continue
        seen, saved = trained(loaders, batches)
        others = [loader(samples, r, now, other_size, drop_last=drop_last, epoch=0) for r in range(now)]
        found = rests(others, saved, before)
        count = Counter(seen) + Counter(i for rest in found for batch in rest.batches for i in batch)
        assert len(seen) == batches * batch_size * before
        assert sum(count.values()) - len(count) < now, "only the samples that fill up the last round are trained twice"
        left = samples - len(count)
        assert left < now * other_size if drop_last else left == 0
        assert {rest.delivered + len(rest.batches) for rest in found} == {len(others[0])}


def test_file_of_a_rest_is_continued_on_the_same_and_on_other_ranks():
    loaders = [loader(97, rank, 2, 4, drop_last=False) for rank in range(2)]
    seen, saved = trained(loaders, 5)
    three = [loader(97, rank, 3, 2, drop_last=False) for rank in range(3)]
    first = rests(three, saved, 2)
    states = [after(saved, rest, 4, three[0]) for rest in first]
    seen += [i for rest in first for batch in rest.batches[:4] for i in batch]

    same = [dealing.rest(trainer(r, 3), [three[r]], [states[r]], 3) for r in range(3)]
    assert [(rest.batches, rest.skip, rest.change) for rest in same] == [(rest.batches, 4, "") for rest in first]
    (alone,) = rests([loader(97, 0, 1, 4, drop_last=False)], states[0], 3)
    assert Counter(seen) + Counter(i for batch in alone.batches for i in batch) == Counter(range(97))
    assert alone.change.startswith("goes on after 64 of 97 samples of this epoch")


def test_twin_that_begins_with_the_first_sample_trains_some_twice():
    """What skipping nothing of the order would do."""
    loaders = [loader(96, rank, 2, 4, drop_last=False) for rank in range(2)]
    seen, saved = trained(loaders, 5)
    dealt = dealing.deal(dealing.order(saved.dealt, None), 0, 1, 4, drop_last=False)
    assert max((Counter(seen) + Counter(i for batch in dealt for i in batch)).values()) == 2


def test_rest_that_drop_last_would_leave_out_is_one_smaller_batch():
    assert dealing.deal([5, 6, 7], 1, 2, 4, drop_last=True) == [[6, 5]]


def test_order_of_a_single_process_is_drawn_again_and_leaves_the_generators_alone():
    torch.manual_seed(4)
    (one,) = [loader(50, 0, 1, 4, drop_last=False)]
    seen, saved = trained([one], 12)
    before = torch.get_rng_state()
    assert dealing.order(saved.dealt, saved.order_rng)[:48] == seen
    assert torch.equal(before, torch.get_rng_state())


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        return iter(range(10))


@pytest.mark.parametrize(
    ("made", "ranks"),
    [
        (DataLoader(Endless(), 2), 1),
        (DataLoader(range(10), 2, sampler=WeightedRandomSampler([1.0] * 10, 10)), 1),
        (DataLoader(range(10), 2, sampler=RandomSampler(range(10), replacement=True)), 1),
        (DataLoader(range(10), 2, shuffle=True, generator=torch.Generator()), 1),
        (DataLoader(range(10), 2, shuffle=True), 2),
        (DataLoader(range(10), None), 1),
        ([1, 2], 1),
    ],
)
def test_loader_whose_order_is_not_known_to_all_ranks_is_not_dealt(made, ranks):
    assert dealing.of_loader(made, ranks) is None


def test_rest_under_a_limit_or_of_another_data_set_or_of_several_loaders_is_not_dealt():
    one = loader(50, 0, 1, 4, drop_last=False)
    _, saved = trained([loader(50, rank, 2, 4, drop_last=False) for rank in range(2)], 3)
    assert dealing.rest(trainer(0, 1), [one], [saved], 2) is not None
    assert dealing.rest(trainer(0, 1, limit=0.5), [one], [saved], 2) is None
    assert dealing.rest(trainer(0, 1), [loader(51, 0, 1, 4, drop_last=False)], [saved], 2) is None
    assert dealing.rest(trainer(0, 1), [one, one], [saved, saved], 2) is None
