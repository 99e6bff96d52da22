"""How the contents of two checkpoints differ: tensor by tensor, value by value. Imports torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from checkpointable.storage.format.placeholder import Placeholder
from checkpointable.storage.format.same import same

_AT_A_TIME = 1 << 22  # elements


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One place where they differ.

    Attributes:
        name: Of the tensor or value.
        one: What the first holds, in words; ``None`` if it holds nothing there.
        other: What the second holds, likewise.
        elements: How many elements differ, and how many there are; ``None`` for what is no pair of like tensors.
        largest: The largest absolute difference between elements; NaN where one of a pair is NaN.
        at: The index of that element.
    """

    name: str
    one: str | None
    other: str | None
    elements: tuple[int, int] | None = None
    largest: float | None = None
    at: tuple[int, ...] | None = None


def differences(one: Any, other: Any, name: str = "") -> Iterator[Difference]:
    """Every place where two values differ, in containers and below. NaN equals NaN. Values may contain themselves."""
    return _differences(one, other, name, set())


def _differences(one: Any, other: Any, name: str, seen: set[tuple[int, int]]) -> Iterator[Difference]:
    pairs = _parts(one, other, name)
    if pairs is not None:
        if (id(one), id(other)) not in seen:
            seen.add((id(one), id(other)))
            for part, here, there in pairs:
                yield from _differences(here, there, part, seen)
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        yield from _of_tensors(one, other, name)
    elif one is _ABSENT or other is _ABSENT or not same(one, other):
        yield Difference(name=name, one=_shown(one), other=_shown(other))


def _parts(one: Any, other: Any, name: str) -> Iterator[tuple[str, Any, Any]] | None:
    """What two containers hold, side by side; ``None`` if they are not of one kind."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = dict.fromkeys([*one, *other])
        return ((f"{name}.{key}" if name else f"{key}", one.get(key, _ABSENT), other.get(key, _ABSENT)) for key in keys)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        both = itertools.zip_longest(one, other, fillvalue=_ABSENT)
        return ((f"{name}[{place}]", here, there) for place, (here, there) in enumerate(both))
    return None


class _Absent:
    """Nothing is there."""


_ABSENT = _Absent()


def _of_tensors(one: torch.Tensor, other: torch.Tensor, name: str) -> Iterator[Difference]:
    if same(one, other):
        return
    alike = one.shape == other.shape and one.dtype == other.dtype and one.layout == other.layout == torch.strided
    if not alike or one.is_quantized:
        yield Difference(name=name, one=_shown(one), other=_shown(other))
        return
    count, largest, place = _compared(one.detach().reshape(-1), other.detach().reshape(-1))
    if not count:  # their bits differ, and no number: 0.0 and -0.0, or two kinds of NaN
        yield Difference(name=name, one=_shown(one), other=_shown(other), elements=(0, one.numel()), largest=0.0)
        return
    yield Difference(
        name=name,
        one=_number(one.reshape(-1)[place]),
        other=_number(other.reshape(-1)[place]),
        elements=(count, one.numel()),
        largest=largest,
        at=tuple(int(it) for it in torch.unravel_index(torch.tensor(place), one.shape)) if one.dim() else (),
    )


def _compared(one: torch.Tensor, other: torch.Tensor) -> tuple[int, float, int]:
    """How many elements differ, by how much at most, and the place of that one. It takes little memory."""
    count, largest, place = 0, -1.0, 0
    for start in range(0, one.numel(), _AT_A_TIME):
        here, there = one[start : start + _AT_A_TIME], other[start : start + _AT_A_TIME]
        differs = (here != there) & ~(_is_nan(here) & _is_nan(there))
        if not (found := int(differs.sum())):
            continue
        count += found
        gaps = torch.where(differs, (_wide(here) - _wide(there)).abs(), -1.0)
        widest = int(torch.argmax(torch.where(_is_nan(gaps), math.inf, gaps)))
        gap = float(gaps[widest])
        if not math.isnan(largest) and (math.isnan(gap) or gap > largest):
            largest, place = gap, start + widest
    return count, largest, place


def _is_nan(tensor: torch.Tensor) -> torch.Tensor:
    return tensor != tensor


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _number(element: torch.Tensor) -> str:
    value = element.item()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _shown(value: Any) -> str | None:
    """A value in a few words."""
    if value is _ABSENT:
        return None
    if isinstance(value, torch.Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind} {list(value.shape)}"
    if isinstance(value, (Mapping, list, tuple, set)) and len(value) > 3:
        return f"{type(value).__name__} of {len(value)}"
    return repr(value) if not isinstance(value, Placeholder) else value.name
