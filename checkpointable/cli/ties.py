"""Which weights are one tensor under several names, as where a model ties two layers. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def originals(weights: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """For each name the first one, in the order of the alphabet, of the same tensor: the same memory, seen alike."""
    first: dict[Any, str] = {}
    found = {}
    for name in sorted(weights):
        place = _place(weights[name])
        found[name] = name if place is None else first.setdefault(place, name)
    return found


def _place(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    """Where its memory is, and how it is seen; ``None`` where there is none to compare."""
    if tensor.layout != torch.strided or tensor.is_quantized or not tensor.numel():
        return None
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()
