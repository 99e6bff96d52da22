"""Two pieces of saved state are the same if their bits are."""

from __future__ import annotations

import numpy
import torch

from checkpointable.storage.format.same import same


def test_same_compares_bits_and_types():
    nan = torch.tensor([float("nan"), 1.0])
    assert same({"a": [nan, (1, 2.0)], "b": float("nan")}, {"a": [nan.clone(), [1, 2]], "b": float("nan")})
    assert not same(torch.tensor(0.0), torch.tensor(-0.0))
    assert not same(torch.tensor(1.0), torch.tensor(1.0, dtype=torch.float64))
    assert not same(torch.zeros(2), torch.zeros(2, 1))
    assert not same({"a": 1}, {"a": 1, "b": 2})
    assert same(numpy.arange(3), numpy.arange(3))
    assert not same(numpy.arange(3), numpy.array([0, 1, 3]))
    assert not same(numpy.arange(3), numpy.arange(4))
    assert same(torch.eye(2).to_sparse(), torch.eye(2).to_sparse())


def test_values_that_contain_themselves_are_compared():
    def endless(number):
        inside = [number]
        inside.append(inside)
        return inside

    assert same(endless(1), endless(1))
    assert not same(endless(1), endless(2))
