"""What a checkpoint consists of when it is pickled as ``torch.save`` does: named records, tensors' bytes apart.

Pickling freezes everything that is not a tensor. The bytes of tensors are not touched: they stay in their storages.
"""

from __future__ import annotations

import functools
import io
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import serialization

Record: TypeAlias = tuple[str, bytes | torch.UntypedStorage]
_PROTOCOL = 2  # torch.save's


def records(checkpoint: Mapping[str, Any]) -> list[Record]:
    """The records of a checkpoint in the order of the archive, without those that torch's writer adds at its end.

    Storages of other devices are copied to the CPU, as ``torch.save`` does.
    """
    collector = _Collector()
    serialization._save(checkpoint, collector, pickle, _PROTOCOL, False)  # type: ignore[no-untyped-call]
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
