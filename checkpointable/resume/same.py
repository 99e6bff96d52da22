"""Whether two pieces of saved state are the same to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal: tensors in type, shape and bits, containers in what they hold.

    Lists and tuples are not told apart, nor are numbers of different types. NaN equals NaN.
    """
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and _same_tensors(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and one != one:
        return other != other
    equal: Any = one == other
    return bool(equal.all()) if hasattr(equal, "all") else bool(equal)


def differing(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of the saved values that are missing now, or are not the same."""
    return [name for name, value in saved.items() if name not in now or not same(value, now[name])]


def _same_tensors(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape or one.layout != other.layout:
        return False
    one, other = one.detach(), other.detach().to(one.device)
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    return torch.equal(one, other) if one.is_quantized else torch.equal(_bits(one), _bits(other))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Its bytes, so that NaN is compared like any other value."""
    return tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
