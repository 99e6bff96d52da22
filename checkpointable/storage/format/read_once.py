"""Loads a checkpoint of ours and reads each byte once: into the memory of its tensor, where its checksum is computed.

Torch makes the tensors without their data (``torch.serialization.skip_data``), and asks where each storage is to be, in
the order in which the pickled objects name them first. In this order torch's writer and ours have numbered them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import serialization

from checkpointable.storage import memory
from checkpointable.storage.format import archive, safe_load, verify, zip_directory, zip_layout
from checkpointable.storage.format.checksum import crc32
from checkpointable.storage.format.zip_directory import Directory

_ROOT = f"{zip_layout.ROOT}/".encode()
_READ_NO_DATA = {b"_rebuild_tensor_v2", b"_rebuild_parameter"}  # functions of torch that make tensors
_BLOCK = 1 << 20  # bytes: what is read is still in the cache of the processor
_LARGE = 1 << 22
_THREADS = 4


class Loaded(NamedTuple):
    """What a file holds, and what is wrong with its bytes."""

    content: Any
    problem: str | None


class _Data(NamedTuple):
    """The data of one storage in the file."""

    name: bytes
    start: int
    size: int


def load(file: BinaryIO, path: str, *, weights_only: bool | None) -> Loaded | None:
    """Load an open local file onto the CPU, and run no code of it.

    Args:
        file: At any position.
        path: Its name, for errors.
        weights_only: ``None`` or ``True``, as for ``torch.load``.

    Returns:
        ``None`` if it is no file of ours, or has what cannot be made without its data, or its directory or its pickled
        objects are damaged.

    Raises:
        pickle.UnpicklingError: If it holds what no checkpoint holds.
        OSError: If it cannot be read.
    """
    stored = _stored(file)
    if stored is None:
        return None
    made: list[torch.UntypedStorage] = []

    def stay(storage: torch.UntypedStorage, _: str) -> torch.UntypedStorage:
        if storage.nbytes():
            made.append(storage)
        return storage

    file.seek(0)
    try:
        with serialization.skip_data():
            content = safe_load.load(file, path, stay, weights_only=weights_only, with_placeholders=False)
    except safe_load.UnknownObjectsError:
        return None
    storages = made[len(made) - len(stored) :]  # the first of two unpicklers may have made some
    if [storage.nbytes() for storage in storages] != [data.size for data in stored]:
        return None
    return Loaded(content, verify.problem_in(file, _fill(storages, file.fileno(), stored)))


def _stored(file: BinaryIO) -> list[_Data] | None:
    """The data of all storages that have any, in the order of their numbers; ``None`` as for ``load``."""
    if not hasattr(os, "preadv"):
        return None
    try:
        directory = zip_directory.read(file)
        if not archive.has_intact_seal(directory) or not _may_be_made_without_data(file, directory):
            return None
        found = {}
        for entry in directory.entries():
            number = entry.name.removeprefix(_ROOT + b"data/")
            if number.isdigit() and entry.size:
                found[int(number)] = _Data(entry.name, zip_directory.data_start(file, entry), entry.size)
    except archive.DAMAGE:
        return None
    return [found[number] for number in sorted(found)]


def _may_be_made_without_data(file: BinaryIO, directory: Directory) -> bool:
    """Whether the pickled objects are intact, of this machine's byte order, and nothing in them reads a tensor.

    A class that the user has told torch to be safe may.
    """
    order, objects = (directory.last_named(_ROOT + name) for name in (b"byteorder", b"data.pkl"))
    if order is None or objects is None or order.checksum != zlib.crc32(sys.byteorder.encode()):
        return False
    file.seek(zip_directory.data_start(file, objects))
    pickled = file.read(objects.size)
    if crc32(pickled) != objects.checksum or not set(re.findall(rb"_rebuild_\w+", pickled)) <= _READ_NO_DATA:
        return False
    return not any(f"\n{name.rpartition('.')[2]}\n".encode() in pickled for name in safe_load.told_to_be_safe())


def _fill(storages: list[torch.UntypedStorage], descriptor: int, stored: list[_Data]) -> dict[bytes, int]:
    """Read the data into the storages; returns the checksums. An interrupt waits for the blocks being read."""
    stop = threading.Event()

    def read(storage: torch.UntypedStorage, data: _Data) -> int:
        address, checksum = storage.data_ptr(), 0
        if data.size >= _LARGE:
            memory.populate(address, data.size)
        whole = memoryview((ctypes.c_char * data.size).from_address(address)).cast("B")
        at = 0
        while at < data.size and not stop.is_set():
            count = os.preadv(descriptor, [whole[at : at + _BLOCK]], data.start + at)
            if not count:
                raise EOFError(f"it ends before the end of {data.name.decode()}")
            checksum = crc32(whole[at : at + count], checksum)
            at += count
        return checksum

    checksums: list[int] = []
    with contextlib.suppress(RuntimeError), ThreadPoolExecutor(_THREADS, "checkpointable-read") as pool:
        try:
            checksums = list(pool.map(read, storages, stored))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if len(checksums) < len(stored):  # there are no more threads
        stop.clear()
        checksums = list(map(read, storages, stored))
    return {data.name: checksum for data, checksum in zip(stored, checksums, strict=True)}
