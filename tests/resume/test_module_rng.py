"""Where in a module its random generators are found."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from checkpointable.resume import module_rng


def holding(value: Any) -> torch.nn.Module:
    """A module in which one part has that value beside what all parts have."""
    part = torch.nn.Conv2d(1, 1, 1)
    part.held = value
    return torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Sequential(part))


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (random.Random(1), "1.0.held"),
        ((1, random.Random(1)), "1.0.held[1]"),
        ((1, (2, (random.Random(1),))), "1.0.held[1][1][0]"),
        ([random.Random(1), 2], "1.0.held[0]"),
        ({"a.b": random.Random(1)}, "1.0.held['a.b']"),
        (SimpleNamespace(inner=random.Random(1)), "1.0.held.inner"),
    ],
    ids=["itself", "in a tuple", "in tuples", "in a list", "in a dictionary", "in an object"],
)
def test_generator_of_a_part_is_found_and_restored(value: Any, where: str) -> None:
    module = holding(value)
    saved = module_rng.capture(module)
    assert list(saved) == [where]
    other = holding(value)
    drawn = [found.random() for found in module_rng._generators(other).values()]
    module_rng.restore(other, saved)
    assert [found.random() for found in module_rng._generators(other).values()] == drawn


@pytest.mark.parametrize("value", [(), (1, 2), ("a", None, 2.5), (1, (2, 3)), torch.zeros(3), 7])
def test_part_without_a_generator_has_none(value: Any) -> None:
    assert module_rng.capture(holding(value)) == {}


def test_generator_that_two_parts_share_is_captured_once() -> None:
    shared = torch.Generator()
    module = torch.nn.Sequential(holding(shared), holding([shared]))
    assert list(module_rng.capture(module)) == ["0.1.0.held"]
