"""The global random generators of ``random``, ``numpy``, ``torch`` and every CUDA device.

Their states are as the libraries give them. ``packing`` makes what goes into a file of them.

Python takes 8 microseconds to give a state, and NumPy 30, and both are asked at many batches. Comparing the memory of a
generator takes less than one. So a state is asked for anew only where that memory has changed.
"""

from __future__ import annotations

import _random
import contextlib
import ctypes
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch

State = dict[str, Any]
_MT19937_BYTES = 2500  # of its state in memory: 624 words and a position
_last_of_python: tuple[tuple[bytes, float | None], tuple[Any, ...]] | None = None
_last_of_numpy: tuple[tuple[bytes, bytes], dict[str, Any]] | None = None


def capture() -> State:
    """The states of all generators of this process; of NumPy's only if NumPy has been imported."""
    state: State = {"python": _python_state(), "torch": torch.default_generator.get_state()}
    if "numpy" in sys.modules:
        state["numpy"] = _numpy_state(sys.modules["numpy"])
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: Mapping[str, Any]) -> None:
    """Set the generators to these states."""
    if _python_state() is not state["python"]:
        random.setstate(state["python"])
    torch.default_generator.set_state(state["torch"])
    if "numpy" in state:
        import numpy

        if _numpy_state(numpy) is not state["numpy"]:
            numpy.random.set_state(state["numpy"])
    if "cuda" in state and torch.cuda.device_count() >= len(state["cuda"]):
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])


def _python_state() -> tuple[Any, ...]:
    """The state of Python's generator; the same object as before if nothing was drawn since."""
    global _last_of_python
    memory = _python_memory()
    if memory is not None and _last_of_python is not None and memory == _last_of_python[0]:
        return _last_of_python[1]
    state = random.getstate()
    _last_of_python = None if memory is None else (memory, state)
    return state


def _numpy_state(numpy: Any) -> dict[str, Any]:
    """The state of NumPy's generator; the same object as before if nothing was drawn since."""
    global _last_of_numpy
    memory = _numpy_memory(numpy)
    if memory is not None and _last_of_numpy is not None and memory == _last_of_numpy[0]:
        return _last_of_numpy[1]
    state: dict[str, Any] = numpy.random.get_state(legacy=False)
    _last_of_numpy = None if memory is None else (memory, state)
    return state


def _python_memory() -> tuple[bytes, float | None] | None:
    """All that the state of Python's generator consists of; ``None`` if user code has put another one in its place."""
    generator = getattr(random.getstate, "__self__", None)
    if sys.implementation.name != "cpython" or type(generator) is not random.Random:
        return None
    return _memory_of(generator, _random.Random), vars(generator)["gauss_next"]


def _numpy_memory(numpy: Any) -> tuple[bytes, bytes] | None:
    """The same of NumPy's."""
    owner, find = getattr(numpy.random.get_state, "__self__", None), getattr(numpy.random, "get_bit_generator", None)
    generator: Any = find and find()
    if type(owner) is not numpy.random.RandomState or type(generator).__name__ != "MT19937":
        return None
    return ctypes.string_at(generator.ctypes.state_address, _MT19937_BYTES), _memory_of(owner, type(owner))


def _memory_of(thing: object, kind: type) -> bytes:
    """What C keeps in an object of this class, such as the second of two normal numbers, which waits to be drawn."""
    head = object.__basicsize__
    return ctypes.string_at(id(thing) + head, kind.__basicsize__ - head)


def differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two states are of different moments."""
    numpy = one.get("numpy") is not other.get("numpy") and repr(one.get("numpy")) != repr(other.get("numpy"))
    cuda = zip(one.get("cuda", ()), other.get("cuda", ()), strict=False)
    pairs = [(one["torch"], other["torch"]), *cuda]
    return numpy or one["python"] != other["python"] or not all(torch.equal(*pair) for pair in pairs)


@contextlib.contextmanager
def isolated(state: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Restore the generators at the end of a ``with`` block, which starts from ``state`` if given."""
    before = capture()
    try:
        if state is not None:
            restore(state)
        yield
    finally:
        restore(before)


def seeded(seed: int, *, like: Mapping[str, Any]) -> State:
    """The states of freshly seeded generators, of those libraries that ``like`` has a state of."""
    with isolated():
        random.seed(seed)
        torch.manual_seed(seed)
        if "numpy" in like:
            import numpy

            numpy.random.seed(seed & 0xFFFFFFFF)
        found = capture()
        return {name: found[name] for name in like if name in found}


def derive_seed(base: int, number: int) -> int:
    """A seed of 63 bits, derived from a base seed and a number.

    The mixing function is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
    """
    mask = (1 << 64) - 1
    mixed = (base + (number + 1) * 0x9E3779B97F4A7C15) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    mixed ^= mixed >> 31
    return mixed >> 1


def seed_worker(seed: int) -> None:
    """Seed the global generators of a worker process."""
    random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed seeds devices too, and takes 100 times longer
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed & 0xFFFFFFFF)
