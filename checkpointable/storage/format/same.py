"""Whether two pieces of saved state are the same to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class ComparedByParts:
    """Instances are the same if what ``parts`` returns is."""

    __slots__ = ()

    def parts(self) -> tuple[Any, ...]:
        """All that two instances are compared by."""
        raise NotImplementedError


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal: tensors in type, shape and bits, containers in what they hold.

    Lists and tuples are not told apart, nor are numbers of different types. NaN equals NaN. Values may contain
    themselves.
    """
    return _same(one, other, set())


def _same(one: Any, other: Any, compared: set[tuple[int, int]]) -> bool:
    if one is other or (id(one), id(other)) in compared:
        return True
    for kinds, are_same in _CONTAINERS:
        if isinstance(one, kinds) or isinstance(other, kinds):
            compared.add((id(one), id(other)))
            return isinstance(one, kinds) and isinstance(other, kinds) and are_same(one, other, compared)
    if getattr(one, "shape", None) != getattr(other, "shape", None):
        return False
    equal: Any = one == other
    if hasattr(equal, "all"):  # arrays
        return bool(equal.all())
    return bool(equal) or (isinstance(one, float) and isinstance(other, float) and one != one and other != other)


def _same_mappings(one: Mapping[Any, Any], other: Mapping[Any, Any], compared: set[tuple[int, int]]) -> bool:
    return one.keys() == other.keys() and all(_same(value, other[key], compared) for key, value in one.items())


def _same_sequences(one: Any, other: Any, compared: set[tuple[int, int]]) -> bool:
    return len(one) == len(other) and all(_same(a, b, compared) for a, b in zip(one, other, strict=True))


def _same_parts(one: ComparedByParts, other: ComparedByParts, compared: set[tuple[int, int]]) -> bool:
    return _same_sequences(one.parts(), other.parts(), compared)


def _same_tensors(one: torch.Tensor, other: torch.Tensor, _: set[tuple[int, int]]) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape or one.layout != other.layout:
        return False
    one, other = one.detach(), other.detach().to(one.device)
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    if one.is_quantized:
        return torch.equal(one, other)
    one, other = bytes_of(one), bytes_of(other)
    for word in (torch.int64, torch.int32):  # compared in a fifth of the time
        if all(it.numel() % word.itemsize == it.storage_offset() % word.itemsize == 0 for it in (one, other)):
            return torch.equal(one.view(word), other.view(word))
    return torch.equal(one, other)


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor's elements, one after another. NaN is compared by them like any other value."""
    flat = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    if flat.numel() == 1:  # is contiguous with any stride
        flat = flat.as_strided((1,), (1,))
    return flat.view(torch.uint8)


_CONTAINERS: tuple[tuple[Any, Any], ...] = (
    (torch.Tensor, _same_tensors),
    (ComparedByParts, _same_parts),
    (Mapping, _same_mappings),
    ((list, tuple), _same_sequences),
)
