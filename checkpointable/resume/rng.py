"""The global random generators of ``random``, ``numpy``, ``torch`` and every CUDA device.

Their states are tensors and plain numbers, so that ``torch.load(weights_only=True)`` reads them.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch

State = dict[str, Any]


def capture() -> State:
    """The states of all generators of this process; of NumPy's only if NumPy has been imported."""
    version, words, gauss = random.getstate()
    state: State = {"python": {"version": version, "words": torch.tensor(words), "gauss": gauss}}
    state["torch"] = torch.get_rng_state()
    if "numpy" in sys.modules:
        name, keys, place, has_gauss, cached = sys.modules["numpy"].random.get_state()
        words = torch.tensor(keys.astype("int64"))
        state["numpy"] = {"name": name, "words": words, "place": place, "has_gauss": has_gauss, "cached": cached}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: Mapping[str, Any]) -> None:
    """Set the generators to these states."""
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    torch.set_rng_state(state["torch"].cpu())
    if "numpy" in state:
        import numpy

        saved = state["numpy"]
        keys = saved["words"].numpy().astype("uint32")
        numpy.random.set_state((saved["name"], keys, saved["place"], saved["has_gauss"], saved["cached"]))
    if "cuda" in state and torch.cuda.device_count() >= len(state["cuda"]):
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])


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
