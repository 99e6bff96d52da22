"""States of random generators and samplers in a file: as small tensors, and equal ones once.

``torch.load(weights_only=True)`` reads tensors, but neither arrays nor large numbers in tuples without cost. A state of
``torch`` has 5056 bytes, of which half are zeros, and a run has many states that differ little.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch

_KEY = "packed"
_FEW = 16  # shorter sequences of numbers stay as they are
_SEQUENCES = {"tuple": tuple, "list": list}


class Packer:
    """Packs the states of one file. Parts that are equal become the same tensor, which a file holds once."""

    def __init__(self) -> None:
        self._made: dict[bytes, torch.Tensor] = {}

    def pack(self, value: Any) -> Any:
        """The value with its tensors, arrays and long sequences of whole numbers packed."""
        if isinstance(value, Mapping):
            return {key: self.pack(item) for key, item in value.items()}
        if isinstance(value, torch.Tensor):
            packed = value.cpu().contiguous()
            return self._packed("tensor", packed, str(packed.dtype).removeprefix("torch."), list(packed.shape))
        if hasattr(value, "dtype") and hasattr(value, "tobytes"):  # an array of NumPy, or one of its numbers
            return self._packed("array", value, str(value.dtype), list(value.shape))
        if isinstance(value, (tuple, list)):
            if len(value) > _FEW and all(type(item) is int and -(1 << 63) <= item < 1 << 63 for item in value):
                return self._packed(type(value).__name__, torch.tensor(value).numpy(), "int64", [len(value)])
            return type(value)(self.pack(item) for item in value) if type(value) in (tuple, list) else value
        return value

    def _packed(self, kind: str, value: Any, dtype: str, shape: list[int]) -> dict[str, Any]:
        content = (value.reshape(-1).view(torch.uint8).numpy() if kind == "tensor" else value).tobytes()
        if content not in self._made:
            self._made[content] = torch.frombuffer(bytearray(zlib.compress(content, 1)), dtype=torch.uint8)
        return {_KEY: kind, "content": self._made[content], "dtype": dtype, "shape": shape}


def unpack(value: Any) -> Any:
    """What was packed."""
    if isinstance(value, Mapping):
        return _unpacked(value) if _KEY in value else {key: unpack(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(unpack(item) for item in value)
    return value


def _unpacked(packed: Mapping[str, Any]) -> Any:
    content = bytearray(zlib.decompress(packed["content"].numpy().tobytes()))
    if packed[_KEY] == "array":
        import numpy

        return numpy.frombuffer(content, dtype=packed["dtype"]).reshape(packed["shape"])[()]
    kind = getattr(torch, packed["dtype"])
    values = torch.frombuffer(content, dtype=kind) if content else torch.empty(0, dtype=kind)
    return values.reshape(packed["shape"]) if packed[_KEY] == "tensor" else _SEQUENCES[packed[_KEY]](values.tolist())
