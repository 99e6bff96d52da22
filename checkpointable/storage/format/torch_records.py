"""A checkpoint as named records, as ``torch.save`` makes them: the pickled objects, and the storage of each tensor.

Everything that is not a tensor is pickled, so it no longer changes. The bytes of tensors stay in their storages.

Plain tensors are pickled as in ``plain_tensors.py``; a checkpoint with any other tensor is left to torch.
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch
from torch import serialization

from checkpointable.storage.format.plain_tensors import PROTOCOL, NotPlainError, PlainTensors

Record: TypeAlias = tuple[str, bytes | torch.UntypedStorage]


def records(checkpoint: Mapping[str, Any]) -> list[Record]:
    """The records of a checkpoint in the order of the archive, without those that torch's writer appends.

    Storages of plain tensors stay on their devices. Where torch pickles, those on devices are copied to the CPU.
    """
    try:
        pickled, storages = _pickled(checkpoint)
    except NotPlainError:
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


def _pickled(checkpoint: Mapping[str, Any]) -> tuple[bytes, dict[str, torch.UntypedStorage]]:
    """What ``torch.save`` pickles, and the storages by the names that it gives them.

    Raises:
        NotPlainError: If there is a tensor that is not plain, or a storage of its own.
    """
    (_, tag_of_first_kind, _), *_ = serialization._package_registry
    if torch.Tensor in copyreg.dispatch_table or tag_of_first_kind is not serialization._cpu_tag:  # by user code
        raise NotPlainError
    tensors = PlainTensors()
    file = io.BytesIO()
    pickler = pickle.Pickler(file, PROTOCOL)
    refused = dict.fromkeys(_storage_types(torch.UntypedStorage, torch.storage.TypedStorage), _refuse)
    pickler.dispatch_table = {**copyreg.dispatch_table, **refused, torch.Tensor: tensors.note}
    pickler.memo = tensors.memo
    pickler.dump(checkpoint)
    return tensors.put_into(file.getvalue()), tensors.storages


def _storage_types(*kinds: type) -> Iterator[type]:
    """The classes and all that derive from them."""
    for kind in kinds:
        yield kind
        yield from _storage_types(*kind.__subclasses__())


def _refuse(_: Any) -> Any:
    raise NotPlainError


def _records_of_torch(checkpoint: Mapping[str, Any]) -> list[Record]:
    collector = _Collector()
    pickling = SimpleNamespace(Pickler=pickle.Pickler)
    serialization._save(checkpoint, collector, pickling, PROTOCOL, False)  # type: ignore[no-untyped-call]
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
