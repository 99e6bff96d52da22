"""Random generators that loaders, samplers and data sets own, as plain state."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def capture(loader: Any) -> dict[str, Any]:
    """The states of the generators a loader owns, by where they are found."""
    return {place: _state(generator) for place, generator in _found(loader)}


def restore(loader: Any, states: Mapping[str, Any]) -> None:
    """Put the generators into these states; those that are not there any more are passed over."""
    for place, generator in _found(loader):
        if place in states:
            _set_state(generator, states[place])


def _found(loader: Any) -> Iterator[tuple[str, Any]]:
    sampler, batch_sampler = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
    owners = {
        "loader": loader,
        "sampler": sampler,
        "batch_sampler": batch_sampler,
        "batch_sampler.sampler": getattr(batch_sampler, "sampler", None),
        "dataset": getattr(loader, "dataset", None),
    }
    seen: set[int] = set()
    for owner, thing in owners.items():
        for name, value in getattr(thing, "__dict__", {}).items():
            if isinstance(value, _kinds()) and id(value) not in seen:
                seen.add(id(value))
                yield f"{owner}.{name}", value


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
