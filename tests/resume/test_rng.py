"""The states of the global generators: asked for anew only where something was drawn, and always right."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from checkpointable.resume import rng

DRAWS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "a number": random.random,
    "bits": lambda: random.getrandbits(32),
    "one of two normal numbers": lambda: random.gauss(0, 1),
    "a seed": lambda: random.seed(4),
    "NumPy's": np.random.rand,
    "one of two of NumPy's": np.random.randn,
    "NumPy's seed and one of two": lambda: (np.random.seed(0), np.random.randn(1)),
    "NumPy's seed and both": lambda: (np.random.seed(0), np.random.randn(2)),
    "torch's": lambda: torch.rand(()),
}


def drawn() -> tuple[float, ...]:
    normal = random.gauss(0, 1), random.gauss(0, 1), float(np.random.randn()), float(np.random.randn())
    return *normal, random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("before", DRAWS)
@pytest.mark.parametrize("after", DRAWS)
def test_restored_state_gives_the_same_numbers(before, after):
    rng.capture()
    DRAWS[before]()
    state, expected = rng.capture(), None
    with rng.isolated():
        expected = drawn()
    DRAWS[after]()
    rng.capture()
    rng.restore(state)
    assert drawn() == expected


def test_state_is_asked_for_anew_only_where_something_was_drawn():
    random.gauss(0, 1)  # a normal number waits
    first = rng.capture()
    assert rng.capture()["python"] is first["python"]
    random.gauss(0, 1)  # the waiting one, which is no draw of bits
    second = rng.capture()
    assert second["python"] is not first["python"]
    assert second["python"][1] == first["python"][1]
    random.random()
    assert rng.capture()["python"] is not second["python"]


def test_generator_that_user_code_has_put_in_place_is_asked(monkeypatch):
    other = random.Random(3)
    monkeypatch.setattr(random, "getstate", lambda: other.getstate())
    monkeypatch.setattr(random, "setstate", lambda state: other.setstate(state))
    state = rng.capture()
    expected = other.random()
    rng.restore(state)
    assert other.random() == expected
