"""Generators and samplers' values that are hard to find: made late, behind many objects, changed in place."""

from __future__ import annotations

import random

import numpy as np
import pytest
import shapes
import torch
from nets import load
from test_loader_shapes import fit
from torch.utils.data import DataLoader, Sampler, default_collate

from checkpointable import ResumeError
from checkpointable.catalog.info import read_info
from checkpointable.resume import owned_rng, worker_seeds
from checkpointable.resume.generator_states import made_from, state_of
from checkpointable.resume.owned_rng import Owners
from checkpointable.resume.sampler_state import Held


class Late:
    """A collate_fn that makes its generator at the first batch, as transformers' do with a seed."""

    generator = None

    def __call__(self, samples):
        if self.generator is None:
            self.generator = torch.Generator().manual_seed(11)
        batch = default_collate(samples)
        return batch + torch.rand(batch.shape, generator=self.generator)


def late(workers=0):
    return DataLoader(shapes.Numbers(), 2, shuffle=True, collate_fn=Late(), num_workers=workers)


def test_generator_that_is_made_at_its_first_use_gets_its_saved_state_and_is_approximate(tmp_path, caplog):
    straight = fit(tmp_path / "a", late()).seen
    path = tmp_path / "a/epoch_1_batch_2.ckpt"
    with caplog.at_level("INFO"):
        assert fit(tmp_path / "b", late(), ckpt_path=path).seen == straight[8:]
    assert "collate_fn.generator, a random generator, does not exist yet: its state waits for it" in caplog.text


def test_generator_that_is_made_at_its_first_use_draws_other_numbers_without_its_state(tmp_path, monkeypatch):
    straight = fit(tmp_path / "a", late()).seen
    monkeypatch.setattr(Owners, "_make_or_wait", lambda *_: None)
    assert fit(tmp_path / "b", late(), ckpt_path=tmp_path / "a/epoch_1_batch_2.ckpt").seen != straight[8:]


class Holding:
    """Has a list of generators, which may be filled later."""

    def __init__(self, generators):
        self.generators = generators

    def __call__(self, samples):
        return default_collate(samples)


def test_state_waits_for_a_generator_that_appears_after_a_batch():
    made = torch.Generator().manual_seed(5)
    saved = Owners(DataLoader(shapes.Numbers(), collate_fn=Holding([made]))).capture()
    late = Holding([])
    owners = Owners(DataLoader(shapes.Numbers(), collate_fn=late))
    owners.restore(saved)
    owners.give_waiting()
    assert owners.capture() == owners.waiting == saved, "a file that is saved meanwhile holds it, too"
    late.generators.append(torch.Generator())
    owners.give_waiting()
    assert torch.equal(late.generators[0].get_state(), made.get_state())
    assert owners.waiting == {}


@pytest.mark.parametrize("name", ["epoch_0_batch_6", "epoch_1_batch_2"])
def test_generator_that_workers_make_at_their_first_use_is_approximate(tmp_path, name):
    fit(tmp_path / "a", late(workers=1))
    path, says = tmp_path / f"a/{name}.ckpt", "its workers make random generators at their first batch"
    assert says in read_info(path).exactness
    with pytest.raises(ResumeError, match=says):
        fit(tmp_path / "b", late(workers=1), ckpt_path=path, strict_resume=True)


class Own(Late):
    def __init__(self):
        self.generator = torch.Generator().manual_seed(11)


def own(workers):
    return DataLoader(shapes.Numbers(), 2, shuffle=True, collate_fn=Own(), num_workers=workers)


def test_generator_of_a_collate_fn_in_workers_resumes_exactly(tmp_path):
    straight = fit(tmp_path / "a", own(2)).seen
    resumed = fit(tmp_path / "b", own(1), ckpt_path=tmp_path / "a/epoch_1_batch_2.ckpt", strict_resume=True)
    assert resumed.seen == straight[8:]


def test_generator_of_a_collate_fn_in_workers_draws_other_numbers_without_a_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_seeds, "seed", lambda *_: None)
    straight = fit(tmp_path / "a", own(2)).seen
    assert fit(tmp_path / "b", own(2), ckpt_path=tmp_path / "a/epoch_1_batch_2.ckpt").seen != straight[8:]


def test_search_that_stops_at_its_limit_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(owned_rng, "MOST", 0)
    fit(tmp_path / "a", own(0))
    says = "train loader: approximate (the search for random generators stopped after"
    assert read_info(tmp_path / "a/epoch_1_batch_2.ckpt").exactness.startswith(says)


def test_search_is_made_twice_a_fit(tmp_path, monkeypatch):
    searched, search = [], Owners.search

    def counted(owners):
        searched.append(owners)
        search(owners)

    monkeypatch.setattr(Owners, "search", counted)
    fit(tmp_path, own(0))
    assert len(searched) == 2


@pytest.mark.parametrize(
    "generator",
    [torch.Generator(), random.Random(3), np.random.default_rng(3), np.random.RandomState(3)],
    ids=lambda generator: type(generator).__name__,
)
def test_generator_made_from_a_state_draws_what_the_saved_one_draws(generator):
    made = made_from(state_of(generator))
    assert type(made) is type(generator)
    assert str(state_of(made)) == str(state_of(generator))


def test_sampler_that_shuffles_in_place_begins_a_later_pass_elsewhere_without_its_indices(
    tmp_path, monkeypatch, caplog
):
    make = shapes.SHAPES["own sampler"][0]
    straight = fit(tmp_path / "a", make()).seen
    monkeypatch.setattr(Held, "restore", lambda *_: None)
    path = tmp_path / "a/epoch_1_batch_2.ckpt"
    assert fit(tmp_path / "b", make(), ckpt_path=path).seen != straight[8:]
    with pytest.raises(ResumeError, match=r"sampler.indices is another one than when saved"):
        fit(tmp_path / "b", make(), ckpt_path=path, strict_resume=True)


class Chosen(Sampler):
    """Is given its order, as one that the script draws anew would be."""

    def __init__(self, order):
        self.order = order

    def __len__(self):
        return len(self.order)

    def __iter__(self):
        return iter(self.order)


def test_sampler_that_the_script_makes_otherwise_is_approximate(tmp_path):
    def of(order):
        return DataLoader(shapes.Numbers(), 2, sampler=Chosen(order))

    fit(tmp_path / "a", of([3, 1, 2, 0, 5, 4]))
    path = tmp_path / "a/epoch_1_batch_2.ckpt"
    fit(tmp_path / "b", of([3, 1, 2, 0, 5, 4]), ckpt_path=path, strict_resume=True)
    with pytest.raises(ResumeError, match=r"sampler.order is another one than when saved"):
        fit(tmp_path / "c", of([3, 1, 2, 0, 4, 5]), ckpt_path=path, strict_resume=True)


def test_values_of_samplers_come_back_where_others_hold_them_too():
    sampler = Chosen([0, 1, 2])
    sampler.array, sampler.tensor, sampler.passes = np.arange(3), torch.arange(3), 0
    sampler.inner = Chosen([5, 6])
    loader = DataLoader(shapes.Numbers(), sampler=sampler)
    held, array, order = Held(loader), sampler.array, sampler.order
    assert held.capture() == {}
    sampler.order.reverse()
    sampler.array[0], sampler.tensor[0], sampler.passes, sampler.inner.order[0] = 7, 8, 9, 10
    saved = held.capture()
    sampler.order.clear()
    sampler.array[0], sampler.tensor[0], sampler.passes, sampler.inner.order[0] = 0, 0, 0, 0
    held.restore(saved)
    assert (sampler.array.tolist(), sampler.tensor.tolist(), sampler.order) == ([7, 1, 2], [8, 1, 2], [2, 1, 0])
    assert (sampler.passes, sampler.inner.order) == (9, [10, 6])
    assert sampler.array is array
    assert sampler.order is order


@pytest.mark.parametrize("value", [iter([1]), (number for number in [1]), open], ids=["iterator", "generator", "open"])
def test_iterator_in_a_sampler_is_unknown(value):
    unknown = Held(DataLoader(shapes.Numbers(), sampler=Chosen(value) if value is not open else Chosen([]))).unknown()
    assert bool(unknown) == (value is not open)


def test_equal_states_are_in_a_file_once(tmp_path):
    fit(tmp_path / "a", shapes.SHAPES["plain"][0]())
    saved = load(tmp_path / "a/epoch_1_batch_2.ckpt")["checkpointable"]["ranks"][0]
    python = [saved["random"]["python"], saved["training"][0]["iterator_rng"]["python"]]
    words = [state[1]["content"][0].untyped_storage().data_ptr() for state in python]
    assert words[0] == words[1]
