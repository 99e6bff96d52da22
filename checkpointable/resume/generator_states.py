"""One random generator of ``torch``, ``random`` or ``numpy``: its state, set, seeded, or made from a state."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any

import torch


def kinds() -> tuple[type, ...]:
    """The classes of random generators that exist in this process."""
    found: tuple[type, ...] = (torch.Generator, random.Random)
    if "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        found += (numpy.random.Generator, numpy.random.RandomState)
    return found


def is_global(generator: Any) -> bool:
    """Whether a generator is the one that a library draws from where it is given none."""
    of_libraries = [getattr(random.getstate, "__self__", None), torch.default_generator]
    if "numpy" in sys.modules:
        of_libraries.append(getattr(sys.modules["numpy"].random.get_state, "__self__", None))
    return any(generator is it for it in of_libraries)


def state_of(generator: Any) -> Any:
    """The state of a generator, as its library gives it."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if hasattr(generator, "get_state"):  # a RandomState
        return generator.get_state(legacy=False)
    return generator.bit_generator.state


def set_state(generator: Any, state: Any) -> None:
    """Set what ``state_of`` gave."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state.cpu())
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "set_state"):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def made_from(state: Any) -> Any:
    """A new generator in this state; ``None`` if the state is not that of a generator on the CPU."""
    if isinstance(state, torch.Tensor):
        made: Any = torch.Generator()
        if state.shape != made.get_state().shape:
            return None
    elif isinstance(state, Mapping):
        import numpy

        bits = getattr(numpy.random, state["bit_generator"])()
        made = numpy.random.RandomState(bits) if "gauss" in state else numpy.random.Generator(bits)
    else:
        made = random.Random()
    set_state(made, state)
    return made


def seed_with(generator: Any, seed: int) -> None:
    """Seed a generator. In NumPy's, which cannot be seeded again, the state of a new one is set."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, random.Random):
        generator.seed(seed)
    else:
        bits = getattr(generator, "bit_generator", None) or generator._bit_generator
        bits.state = type(bits)(seed).state
        if hasattr(generator, "get_state"):  # a RandomState, which may hold a second normal number
            generator.set_state({**generator.get_state(legacy=False), "has_gauss": 0, "gauss": 0.0})
