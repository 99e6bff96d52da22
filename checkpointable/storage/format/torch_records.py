"""A checkpoint as named records, as ``torch.save`` makes them: the pickled objects, and the storage of each tensor.

Everything that is not a tensor is pickled, so it no longer changes. The bytes of tensors stay in their storages.

Torch's own pickler takes most of the time of a save of many small tensors. Ours writes the same bytes for plain tensors
on the CPU in less than half of it; a checkpoint with any other tensor is left to torch's.
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch
from torch import serialization

Record: TypeAlias = tuple[str, bytes | torch.UntypedStorage]
_PROTOCOL = 2  # torch.save's
_REBUILD = torch._utils._rebuild_tensor_v2


def records(checkpoint: Mapping[str, Any]) -> list[Record]:
    """The records of a checkpoint in the order of the archive, without those that torch's writer appends.

    Storages on other devices are copied to the CPU, as by ``torch.save``.
    """
    try:
        pickled, storages = _pickled(checkpoint)
    except _NotPlainError:
        return _records_of_torch(checkpoint)
    stored = ((f"data/{key}", storage) for key, storage in storages.items())
    stated = [(name, data) for name, data in _records_of_torch({}) if name != "data.pkl"]  # how torch saves
    return [("data.pkl", pickled), *stated, *stored]


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


class _NotPlainError(Exception):
    """There is a tensor or a storage that ``_Pickler`` does not know."""


class _Storage:
    """Stands for the storage of a tensor, and has what torch pickles in its place."""

    __slots__ = ("persistent_id",)

    def __init__(self, persistent_id: tuple[Any, ...]) -> None:
        self.persistent_id = persistent_id


class _Pickler(pickle.Pickler):
    """Python's pickler, which writes storages as torch does."""

    def persistent_id(self, obj: Any) -> Any:
        """What is pickled in place of an object. It is asked for each of them, so it does no more than it must."""
        return obj.persistent_id if type(obj) is _Storage else None


def _pickled(checkpoint: Mapping[str, Any]) -> tuple[bytes, dict[str, torch.UntypedStorage]]:
    """What ``torch.save`` pickles, and the storages by the names that it gives them.

    Raises:
        _NotPlainError: If there is a tensor that is not plain, or a storage of its own.
    """
    (_, tag_of_first_kind, _), *_ = serialization._package_registry
    if torch.Tensor in copyreg.dispatch_table or tag_of_first_kind is not serialization._cpu_tag:  # by user code
        raise _NotPlainError
    storages: dict[str, torch.UntypedStorage] = {}
    keys: dict[int, str] = {}
    dtypes: dict[int, torch.dtype] = {}
    kinds, strided = _storage_kinds(), torch.strided

    def reduce(tensor: torch.Tensor) -> tuple[Any, ...]:
        """What ``Tensor.__reduce_ex__`` returns."""
        dtype = tensor.dtype
        kind = kinds.get(dtype)
        if kind is None or tensor.layout is not strided or not tensor.is_cpu or tensor.is_nested:
            raise _NotPlainError
        if tensor.is_conj() or tensor.is_neg() or tensor.__dict__ or tensor._backward_hooks:
            raise _NotPlainError
        storage = tensor.untyped_storage()
        key = keys.setdefault(storage._cdata, str(len(keys)))
        storages[key] = storage
        address = storage.data_ptr()
        if address and dtypes.setdefault(address, dtype) is not dtype:  # torch refuses it
            raise _NotPlainError
        stands_for = _Storage(("storage", kind, key, "cpu", storage.nbytes() // dtype.itemsize))
        place = (stands_for, tensor.storage_offset(), tuple(tensor.size()), tensor.stride())
        return _REBUILD, (*place, tensor.requires_grad, OrderedDict())

    file = io.BytesIO()
    pickler = _Pickler(file, _PROTOCOL)
    refused = dict.fromkeys(_storage_types(torch.UntypedStorage, torch.storage.TypedStorage), _refuse)
    pickler.dispatch_table = {**copyreg.dispatch_table, **refused, torch.Tensor: reduce}
    pickler.dump(checkpoint)
    return file.getvalue(), storages


@functools.cache
def _storage_kinds() -> dict[torch.dtype, Any]:
    """The class that torch pickles for the storages of each plain type. Others are rebuilt by other functions."""
    names = torch.storage._dtype_to_storage_type_map()
    others = torch.storage._new_dtypes()
    plain = {dtype: name for dtype, name in names.items() if dtype not in others and not _is_quantized(dtype)}
    return {dtype: getattr(torch, name) for dtype, name in plain.items()}


def _is_quantized(dtype: torch.dtype) -> bool:
    return str(dtype).startswith(("torch.q", "torch.uint4", "torch.uint2"))


def _storage_types(*kinds: type) -> Iterator[type]:
    """The classes and all that derive from them."""
    for kind in kinds:
        yield kind
        yield from _storage_types(*kind.__subclasses__())


def _refuse(_: Any) -> Any:
    raise _NotPlainError


def _records_of_torch(checkpoint: Mapping[str, Any]) -> list[Record]:
    collector = _Collector()
    pickling = SimpleNamespace(Pickler=pickle.Pickler)
    serialization._save(checkpoint, collector, pickling, _PROTOCOL, False)  # type: ignore[no-untyped-call]
    return collector.records


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
