"""A checkpoint as named records, as ``torch.save`` makes them: the pickled objects, and the storage of each tensor.

Everything that is not a tensor is pickled, so it no longer changes. The bytes of tensors stay in their storages.
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import zipfile
from collections import ChainMap, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch
from torch import serialization

Record: TypeAlias = tuple[str, bytes | torch.UntypedStorage]
_PROTOCOL = 2  # torch.save's
_TYPED: Any = torch.storage.TypedStorage
_UNTYPED = torch.storage._new_dtypes()  # these are rebuilt by another function


def records(checkpoint: Mapping[str, Any]) -> list[Record]:
    """The records of a checkpoint in the order of the archive, without those that torch's writer appends.

    Storages on other devices are copied to the CPU, as by ``torch.save``.
    """
    collector = _Collector()
    pickling = SimpleNamespace(Pickler=_Pickler)
    serialization._save(checkpoint, collector, pickling, _PROTOCOL, False)  # type: ignore[no-untyped-call]
    return collector.records


def alignment() -> int:
    """The number of bytes that the offset of each member's data is a multiple of."""
    return int(serialization._get_storage_alignment())


@functools.cache
def version() -> bytes:
    """The record in which torch's writer states the version of its format."""
    file = io.BytesIO()
    torch.save({}, file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/version")


def _reduce(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The result of ``Tensor.__reduce_ex__``, computed faster for plain tensors, which nearly all are."""
    special = tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized or tensor.dtype in _UNTYPED
    if special or not tensor.is_cpu or tensor.is_conj() or tensor.is_neg() or tensor.__dict__ or tensor._backward_hooks:
        return tensor.__reduce_ex__(_PROTOCOL)  # type: ignore[no-any-return,no-untyped-call]
    storage = _TYPED(wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True)
    place = (storage, tensor.storage_offset(), tuple(tensor.size()), tensor.stride())
    return torch._utils._rebuild_tensor_v2, (*place, tensor.requires_grad, OrderedDict())


class _Pickler(pickle.Pickler):
    """Python's pickler, with a faster reduction of plain tensors."""

    dispatch_table: Any = ChainMap({torch.Tensor: _reduce}, copyreg.dispatch_table)


@dataclass
class _Collector:
    """Replaces torch's writer, and keeps the records."""

    records: list[Record] = field(default_factory=list)

    def write_record(self, name: str, data: str | bytes | torch.UntypedStorage, size: int) -> None:
        """Like ``torch._C.PyTorchFileWriter.write_record``."""
        if not isinstance(data, torch.UntypedStorage):
            data = data.encode() if isinstance(data, str) else data
            assert len(data) == size
        self.records.append((name, data))
