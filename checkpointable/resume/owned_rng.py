"""The random generators that loaders, samplers, data sets and their transforms own: found, captured and restored."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from lightning.pytorch import Trainer

from checkpointable.resume import rng

_DEEPEST, _LONGEST, _MOST = 12, 64, 5000  # limits of the search: longer lists hold samples, not transforms
_OF_WORKER: dict[int, list[Any]] = {}


def capture(loader: Any) -> dict[str, Any]:
    """The states of the generators that a loader owns, by where each is found."""
    return {at: _state(generator) for at, generator in _found(loader)}


def restore(loader: Any, states: Mapping[str, Any]) -> None:
    """Set the generators to these states. States of generators that no longer exist are ignored."""
    for at, generator in _found(loader):
        if at in states:
            _set_state(generator, states[at])


def counts(loader: Any) -> dict[str, int]:
    """Whole numbers in the attributes of the user's own samplers, such as passes begun or a seed, by where they are."""
    found = {}
    for at, sampler in _samplers(loader).items():
        of_torch = type(sampler).__module__.startswith("torch.")
        numbers = {} if of_torch else getattr(sampler, "__dict__", {})
        found.update({f"{at}.{name}": value for name, value in numbers.items() if type(value) is int})
    return found


def set_counts(loader: Any, saved: Mapping[str, int]) -> None:
    """Set these attributes of the samplers again."""
    for at, sampler in _samplers(loader).items():
        for name in list(getattr(sampler, "__dict__", ())):
            if f"{at}.{name}" in saved:
                setattr(sampler, name, saved[f"{at}.{name}"])


def _samplers(loader: Any) -> dict[str, Any]:
    """A loader's own samplers, also while ``IndexBatches`` replaces one."""
    found: dict[str, Any] = {name: getattr(loader, name, None) for name in ("sampler", "batch_sampler")}
    for name, sampler in found.items():
        if getattr(type(sampler), "stands_for_source", False):
            found[name] = sampler.source
    return {**found, "inner": getattr(found["batch_sampler"], "sampler", None)}


def seed(dataset: Any, seed: int) -> None:
    """Seed the generators of a data set in a worker process, each with a seed of its own."""
    if id(dataset) not in _OF_WORKER:  # a worker searches once
        _OF_WORKER[id(dataset)] = [own for _, own in _below("dataset", dataset, set())]
    for number, generator in enumerate(_OF_WORKER[id(dataset)]):
        own = rng.derive_seed(seed, number)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(own)
        elif isinstance(generator, random.Random):
            generator.seed(own)
        else:
            bits = getattr(generator, "bit_generator", None) or generator._bit_generator
            bits.state = type(bits)(own).state
            if hasattr(generator, "get_state"):  # a RandomState, which may hold a second normal number
                generator.set_state({**generator.get_state(legacy=False), "has_gauss": 0, "gauss": 0.0})


def _found(loader: Any) -> Iterator[tuple[str, Any]]:
    samplers = _samplers(loader)
    owners = {
        "dataset": getattr(loader, "dataset", None),
        "collate_fn": getattr(loader, "collate_fn", None),
        "batch_sampler.sampler": samplers.pop("inner"),
        **samplers,
    }
    seen: set[int] = set()
    for owner, thing in owners.items():
        yield from _below(owner, thing, seen)
    yield from _below("loader", loader, seen, depth=1)


def _below(at: str, thing: Any, seen: set[int], depth: int = _DEEPEST) -> Iterator[tuple[str, Any]]:
    """Generators in an object's attributes and in those of its parts (data sets in data sets, lists of transforms).

    Breadth first, so that the limit on visited objects does not hide a generator near the object.
    """
    level, most, kinds = [(at, thing)], len(seen) + _MOST, _kinds()
    for _ in range(depth + 1):
        deeper: list[tuple[str, Any]] = []
        for path, part in level:
            if id(part) in seen or len(seen) > most:
                continue
            seen.add(id(part))
            if isinstance(part, kinds) and not isinstance(part, random.SystemRandom):  # has no state
                yield path, part
            else:
                deeper += [(f"{path}.{name}", value) for name, value in _parts(part).items()]
        level = deeper


def _parts(thing: Any) -> dict[Any, Any]:
    if isinstance(thing, Mapping):
        return dict(thing) if len(thing) <= _LONGEST else {}
    if isinstance(thing, (list, tuple)):
        return dict(enumerate(thing)) if len(thing) <= _LONGEST else {}
    if isinstance(thing, MethodType):
        return {"self": thing.__self__}
    if isinstance(thing, partial):
        return {"function": thing.func, "arguments": thing.args, "keywords": thing.keywords}
    if isinstance(thing, FunctionType):
        names = dict(zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=False))
        empty = CellType()  # the cell of a name that is not bound yet
        return {name: cell.cell_contents for name, cell in names.items() if cell != empty}
    if isinstance(thing, (type, ModuleType, torch.Tensor, Trainer)):
        return {}
    return dict(getattr(thing, "__dict__", {}))


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
        return _arrays_to_tensors(generator.getstate())
    if hasattr(generator, "get_state"):  # a RandomState
        return _arrays_to_tensors(generator.get_state(legacy=False))
    return _arrays_to_tensors(generator.bit_generator.state)


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state.cpu())
    elif isinstance(generator, random.Random):
        version, words, gauss = _tensors_to_arrays(state)
        generator.setstate((version, tuple(words), gauss))
    elif hasattr(generator, "set_state"):
        generator.set_state(_tensors_to_arrays(state))
    else:
        generator.bit_generator.state = _tensors_to_arrays(state)


def _arrays_to_tensors(value: Any) -> Any:
    """A value with its arrays as tensors, because ``weights_only=True`` loads no arrays."""
    if isinstance(value, Mapping):
        return {key: _arrays_to_tensors(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_arrays_to_tensors(item) for item in value]
    if hasattr(value, "dtype"):
        return {"array": torch.tensor(value.astype("int64").tolist()), "dtype": str(value.dtype)}
    return value


def _tensors_to_arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {"array", "dtype"}:
            return value["array"].numpy().astype(value["dtype"])
        return {key: _tensors_to_arrays(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_tensors_to_arrays(item) for item in value]
    return value
