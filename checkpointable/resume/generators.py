"""Random generators that loaders, samplers and data sets own, as plain state."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import torch

from checkpointable.resume import randomness

_DEEPEST, _LONGEST, _MOST = 6, 64, 5000  # how far to look; a long list holds samples, not transforms
_OF_WORKER: dict[int, list[Any]] = {}


def capture(loader: Any) -> dict[str, Any]:
    """The states of the generators a loader owns, by where they are found."""
    return {place: _state(generator) for place, generator in _found(loader)}


def restore(loader: Any, states: Mapping[str, Any]) -> None:
    """Put the generators into these states; those that are not there any more are passed over."""
    for place, generator in _found(loader):
        if place in states:
            _set_state(generator, states[place])


def counts(loader: Any) -> dict[str, int]:
    """Whole numbers that samplers of the user's own keep, by where they are found: passes begun, or a seed."""
    found = {}
    for place, thing in _samplers(loader):
        numbers = vars(thing) if hasattr(thing, "__dict__") and not _is_of_torch(thing) else {}
        found.update({f"{place}.{name}": value for name, value in numbers.items() if type(value) is int})
    return found


def set_counts(loader: Any, saved: Mapping[str, int]) -> None:
    """Put them back."""
    for place, thing in _samplers(loader):
        for name in list(getattr(thing, "__dict__", ())):
            if f"{place}.{name}" in saved:
                setattr(thing, name, saved[f"{place}.{name}"])


def _samplers(loader: Any) -> list[tuple[str, Any]]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    inner = getattr(batch_sampler, "sampler", None)
    return [("sampler", getattr(loader, "sampler", None)), ("batch_sampler", batch_sampler), ("inner", inner)]


def _is_of_torch(thing: Any) -> bool:
    return type(thing).__module__.startswith("torch.")


def seed(dataset: Any, seed: int) -> None:
    """Seed the generators of a data set in a worker process, each in its own way; their states stay in that process."""
    if id(dataset) not in _OF_WORKER:  # the search is made once in a worker's life
        _OF_WORKER[id(dataset)] = [own for _, own in _below("dataset", dataset, set(), _kinds(), _DEEPEST)]
    for number, generator in enumerate(_OF_WORKER[id(dataset)]):
        own = randomness.seed_of(seed, number)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(own)
        elif isinstance(generator, random.Random):
            generator.seed(own)
        else:
            bits = getattr(generator, "bit_generator", None) or generator._bit_generator
            bits.state = type(bits)(own).state


def _found(loader: Any) -> Iterator[tuple[str, Any]]:
    sampler, batch_sampler = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
    owners = {
        "dataset": getattr(loader, "dataset", None),
        "collate_fn": getattr(loader, "collate_fn", None),
        "batch_sampler.sampler": getattr(batch_sampler, "sampler", None),
        "sampler": sampler,
        "batch_sampler": batch_sampler,
        "loader": loader,
    }
    seen: set[int] = set()
    for owner, thing in owners.items():
        depth = 1 if owner == "loader" else _DEEPEST
        yield from _below(owner, thing, seen, _kinds(), depth)


def _below(at: str, thing: Any, seen: set[int], kinds: tuple[type, ...], depth: int) -> Iterator[tuple[str, Any]]:
    """Generators in an object's attributes, in those of its parts (data sets inside data sets, lists of transforms)."""
    if id(thing) in seen or len(seen) > _MOST:
        return
    seen.add(id(thing))
    if isinstance(thing, kinds):
        yield at, thing
        return
    parts: dict[Any, Any] = {}
    if isinstance(thing, Mapping):
        parts = dict(thing) if len(thing) <= _LONGEST else {}
    elif isinstance(thing, (list, tuple)):
        parts = dict(enumerate(thing)) if len(thing) <= _LONGEST else {}
    elif not isinstance(thing, (type, ModuleType, FunctionType, torch.Tensor)):
        parts = getattr(thing, "__dict__", {})
    if depth:
        for name, value in list(parts.items()):
            yield from _below(f"{at}.{name}", value, seen, kinds, depth - 1)


def _kinds() -> tuple[type, ...]:
    kinds: tuple[type, ...] = (torch.Generator, random.Random)
    if "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        kinds += (numpy.random.Generator, numpy.random.RandomState)
    return kinds


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return _plain(generator.getstate())
    bits = getattr(generator, "bit_generator", None) or generator._bit_generator
    return _plain(bits.state)


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state.cpu())
    elif isinstance(generator, random.Random):
        version, words, gauss = _unplain(state)
        generator.setstate((version, tuple(words), gauss))
    else:
        bits = getattr(generator, "bit_generator", None) or generator._bit_generator
        bits.state = _unplain(state)


def _plain(value: Any) -> Any:
    """Arrays as tensors; ``weights_only=True`` reads no array."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if hasattr(value, "dtype"):
        return {"array": torch.tensor(value.tolist(), dtype=torch.int64), "dtype": str(value.dtype)}
    return value


def _unplain(value: Any) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {"array", "dtype"}:
            return value["array"].numpy().astype(value["dtype"])
        return {key: _unplain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_unplain(item) for item in value]
    return value
