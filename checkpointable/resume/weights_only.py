"""Finds values that ``torch.load(weights_only=True)`` refuses, when a checkpoint is saved and not when it is loaded."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from typing import Any

import torch

_SAFE_TYPES = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray),
    *(torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device),
)
_MAPPINGS = (dict, OrderedDict, defaultdict)
_SEQUENCES = (list, tuple, set)


def unsafe_values(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """The values that would be refused: where each is in the checkpoint, and its type."""
    kind = type(value)
    if kind in _MAPPINGS:
        for key, item in value.items():
            yield from unsafe_values(item, f"{at}[{key!r}]")
    elif kind in _SEQUENCES:
        for number, item in enumerate(value):
            yield from unsafe_values(item, f"{at}[{number}]")
    elif kind not in _SAFE_TYPES and kind not in torch.serialization.get_safe_globals():
        yield at, f"{kind.__module__}.{kind.__qualname__}"
