"""Two pieces of saved state are the same if their bits are."""

from __future__ import annotations

import numpy
import pytest
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


def test_one_element_with_any_stride_is_compared():
    one = torch.linspace(0, 1, 2)[::2]
    assert one.stride() == (2,)
    assert same(one, torch.zeros(1))
    assert not same(one, torch.ones(1))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 1001])
@pytest.mark.parametrize("start", [0, 1, 2, 4])
def test_every_byte_of_any_size_at_any_place_is_compared(size, start):
    whole = torch.arange(2000, dtype=torch.int64).to(torch.uint8)
    part, other = whole[start : start + size], whole[start : start + size].clone()
    assert same(part, other)
    for at in {0, size // 2, size - 1}:
        other[at] += 1
        assert not same(part, other)
        other[at] -= 1
