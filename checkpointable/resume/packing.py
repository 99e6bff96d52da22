"""States of random generators and samplers in a file: as small tensors, and equal ones once.

``torch.load(weights_only=True)`` reads no arrays. A state of ``torch`` has 5056 bytes, of which half are zeros, and a
run has many states that differ in a few bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch

from checkpointable.storage.format.same import bytes_of

_KEY = "packed"
_FEW = 16  # shorter sequences of numbers stay as they are
_SEQUENCES = {"tuple": tuple, "list": list}


class Packer:
    """Packs the states of one file. Parts that are equal become the same tensor, which a file holds once."""

    def __init__(self) -> None:
        self._made: dict[bytes, list[torch.Tensor]] = {}
        self._of_size: dict[int, tuple[bytes, list[torch.Tensor]]] = {}

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
        content = (bytes_of(value).numpy() if kind == "tensor" else value).tobytes()
        if content not in self._made:
            self._made[content] = self._compressed(content)
        return {_KEY: kind, "content": self._made[content], "dtype": dtype, "shape": shape}

    def _compressed(self, content: bytes) -> list[torch.Tensor]:
        """The content, or its difference from one of that size where this is much smaller, followed by that one."""
        whole = _compress(content)
        if len(content) not in self._of_size:
            self._of_size[len(content)] = content, [whole]
            return [whole]
        earlier, packed = self._of_size[len(content)]
        difference = _compress(_xor(content, earlier))
        return [difference, *packed] if len(difference) < len(whole) // 4 else [whole]


def unpack(value: Any) -> Any:
    """What was packed."""
    if isinstance(value, Mapping):
        return _unpacked(value) if _KEY in value else {key: unpack(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(unpack(item) for item in value)
    return value


def _unpacked(packed: Mapping[str, Any]) -> Any:
    parts = [_decompress(part) for part in packed["content"]]
    content = bytearray(parts[0] if len(parts) == 1 else _xor(*parts))
    if packed[_KEY] == "array":
        import numpy

        return numpy.frombuffer(content, dtype=packed["dtype"]).reshape(packed["shape"])[()]
    kind = getattr(torch, packed["dtype"])
    values = torch.frombuffer(content, dtype=kind) if content else torch.empty(0, dtype=kind)
    return values.reshape(packed["shape"]) if packed[_KEY] == "tensor" else _SEQUENCES[packed[_KEY]](values.tolist())


def _compress(content: bytes) -> torch.Tensor:
    """Compressed, with the first bytes of all words of eight first: states have zeros at the same bytes of each."""
    planes = b"".join(content[place::8] for place in range(8))
    return torch.frombuffer(bytearray(zlib.compress(planes, 1)), dtype=torch.uint8)


def _decompress(compressed: torch.Tensor) -> bytes:
    planes = zlib.decompress(compressed.numpy().tobytes())
    content, start = bytearray(len(planes)), 0
    for place in range(8):
        size = len(content[place::8])
        content[place::8] = planes[start : start + size]
        start += size
    return bytes(content)


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")
