"""What a checkpoint consists of when it is pickled as ``torch.save`` does: named records, tensors' bytes apart.

Pickling freezes everything that is not a tensor. The bytes of tensors are not touched: they stay in their storages.
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import zipfile
from collections import ChainMap, OrderedDict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch
from torch import serialization

Record: TypeAlias = tuple[str, bytes | torch.UntypedStorage]
_PROTOCOL = 2  # torch.save's
_TYPED: Any = torch.storage.TypedStorage
_UNTYPED = torch.storage._new_dtypes()  # they go by another function


def records(checkpoint: Mapping[str, Any]) -> list[Record]:
    """The records of a checkpoint in the order of the archive, without those that torch's writer adds at its end.

    Storages of other devices are copied to the CPU, as ``torch.save`` does.
    """
    collector = _Collector()
    pickling = SimpleNamespace(Pickler=_Pickler)
    serialization._save(checkpoint, collector, pickling, _PROTOCOL, False)  # type: ignore[no-untyped-call]
    return collector.records


def alignment() -> int:
    """The multiple of bytes that data starts at."""
    return int(serialization._get_storage_alignment())


@functools.cache
def version() -> bytes:
    """The record in which torch's writer states the version of its format."""
    file = io.BytesIO()
    torch.save({}, file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/version")


def _reduce(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What torch's own ``__reduce_ex__`` gives for plain tensors, which nearly all are; others are left to it."""
    special = tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized or tensor.dtype in _UNTYPED
    if special or not tensor.is_cpu or tensor.is_conj() or tensor.is_neg() or tensor.__dict__ or tensor._backward_hooks:
        return tensor.__reduce_ex__(_PROTOCOL)  # type: ignore[no-any-return,no-untyped-call]
    storage = _TYPED(wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True)
    place = (storage, tensor.storage_offset(), tuple(tensor.size()), tensor.stride())
    return torch._utils._rebuild_tensor_v2, (*place, tensor.requires_grad, OrderedDict())


class _Pickler(pickle.Pickler):
    """Python's, with a quicker way to reduce plain tensors."""

    dispatch_table: Any = ChainMap({torch.Tensor: _reduce}, copyreg.dispatch_table)


class _Collector:
    """In the place of torch's writer: keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write_record(self, name: str, data: str | bytes | torch.UntypedStorage, size: int) -> None:
        """As ``torch._C.PyTorchFileWriter.write_record``."""
        if not isinstance(data, torch.UntypedStorage):
            data = data.encode() if isinstance(data, str) else data
            assert len(data) == size
        self.records.append((name, data))
