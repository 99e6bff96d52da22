"""The snapshot of a checkpoint: the content of its file, which training no longer changes.

What is not a tensor is pickled at once. Tensors are copied once, into memory that is reused by later saves. The copy of
large tensors that only optimizer steps change can be made later, while the next forward and backward run (CheckFreq,
FAST'21; DataStates-LLM, HPDC'24). After that copy, torch's count of changes shows whether such a tensor changed
meanwhile. A change that torch does not count (``.data``) can be missed if it touches few elements. So a part of these
tensors is copied at once and compared to the last bit, in each save another one.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, BinaryIO

import torch

from checkpointable.policy.names import HISTORY_KEY, KEY
from checkpointable.storage.direct import STAYS, UNIT
from checkpointable.storage.format import archive, torch_records, verify, zip_layout
from checkpointable.storage.staging.buffer import StagingBuffer
from checkpointable.storage.staging.rotation import Rotation

_LARGE = 1 << 16  # smaller tensors are always copied at once
_SAMPLE = 1 << 10
_SAMPLES = 16
_FINGERPRINT = 1 << 6
_WRITABLE = 0x200  # PyBUF_WRITE
_memory_at: Callable[[int, int, int], memoryview] = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
)(("PyMemoryView_FromMemory", ctypes.pythonapi))  # a ctypes array would need a new type for each size, which is slow


@dataclass(frozen=True)
class _Copy:
    """A large storage that only steps change: copied later, or copied at once and compared later."""

    storage: torch.UntypedStorage
    source: int
    target: int
    size: int
    fingerprint: tuple[bytes, ...]  # of the source when the snapshot was taken
    tensor: torch.Tensor  # one of those in the storage
    version: int  # torch's count of its changes when the snapshot was taken
    begin: int = 0  # of the part that is copied at once, and compared
    end: int = 0

    def copy_part(self) -> None:
        """Copy the part that is compared."""
        ctypes.memmove(self.target + self.begin, self.source + self.begin, self.end - self.begin)

    def copy_rest(self) -> None:
        """Copy the bytes before and after that part."""
        for start, stop in ((0, self.begin), (self.end, self.size)):
            if start < stop:
                ctypes.memmove(self.target + start, self.source + start, stop - start)

    def is_unchanged(self) -> bool:
        """Whether the tensor is unchanged since the snapshot was taken, as far as can be seen after the copy.

        Torch counts changes in place. For those that it does not count (``.data``), samples are compared: the
        fingerprint shows a change before the copy, the comparison with the source one after it. One part was copied
        when the snapshot was taken, and shows any change.
        """
        return (
            self.tensor._version == self.version
            and _fingerprint(self.target, self.size) == self.fingerprint
            and all(
                ctypes.string_at(self.source + at, _SAMPLE) == ctypes.string_at(self.target + at, _SAMPLE)
                for at in range(0, self.size - _SAMPLE + 1, max((self.size - _SAMPLE) // (_SAMPLES - 1), 1))
            )
            and not _differ(self.source + self.begin, self.target + self.begin, self.end - self.begin)
        )


class Snapshot:
    """The content of a file.

    Args:
        checkpoint: What is saved.
        metadata: What the file states about itself; ``None`` for a file without metadata.
        buffer: Memory that tensors are copied to. With ``None`` they are not copied, and must not change until the file
            is written.
        changed_only_by_steps: Tensors that do not change before ``wait_for_staging`` is called. The large ones are
            copied by ``fill``.
        watched: Copy the tensors of ``changed_only_by_steps`` at once, like all others, so that ``has_changed`` can
            compare them.
        history: The history of the run as JSON, for a file with metadata.

    Raises:
        MemoryError: If there is not enough memory for the copy. Nothing was changed.
    """

    def __init__(
        self,
        checkpoint: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
        buffer: StagingBuffer | None = None,
        changed_only_by_steps: Iterable[torch.Tensor] = (),
        *,
        watched: bool = False,
        history: str | None = None,
    ) -> None:
        found = torch_records.records(checkpoint)
        found += [("version", torch_records.version()), (zip_layout.ID, bytes(zip_layout.ID_SIZE))]
        if metadata is not None and history is not None:
            found.append((archive.HISTORY_MEMBER, history.encode()))
        if metadata is not None:
            found.append((archive.MEMBER, archive.encode(metadata)))
        sizes = [(name, len(data) if isinstance(data, bytes) else data.nbytes()) for name, data in found]
        self._places = zip_layout.lay_out(sizes, alignment=torch_records.alignment())
        self._sealed = metadata is not None
        self._kept: list[torch.UntypedStorage] = [data for _, data in found if isinstance(data, torch.UntypedStorage)]
        self._later: list[_Copy] = []
        self._watched: list[_Copy] = []
        self._written: list[verify.Written] = []
        self._filled = threading.Event()
        self._buffer = buffer
        if buffer is None:
            self._data = [
                data if isinstance(data, bytes) else _view(data.data_ptr(), data.nbytes()) for _, data in found
            ]
            self._filled.set()
        else:
            self._data = self._copied(found, buffer, changed_only_by_steps, watched=watched)
            self._copy_part(buffer.rotation)

    @classmethod
    def of(
        cls,
        checkpoint: Mapping[str, Any],
        buffer: StagingBuffer | None = None,
        changed_only_by_steps: Iterable[torch.Tensor] = (),
        *,
        watched: bool = False,
    ) -> Snapshot:
        """Of a checkpoint that has metadata and history under our key. The history moves to a member of its own."""
        ours = checkpoint.get(KEY, {})
        if HISTORY_KEY in ours:
            checkpoint = {**checkpoint, KEY: {name: it for name, it in ours.items() if name != HISTORY_KEY}}
        history, metadata = ours.get(HISTORY_KEY), ours.get("metadata")
        return cls(checkpoint, metadata, buffer, changed_only_by_steps, watched=watched, history=history)

    @cached_property
    def size(self) -> int:
        """Bytes of the file."""
        return zip_layout.size(self._places, sealed=self._sealed)

    @property
    def is_copy(self) -> bool:
        """Whether it holds copies of the tensors, so that training may continue before the file is there."""
        return self._buffer is not None

    @property
    def is_filled(self) -> bool:
        """Whether all tensors are copied."""
        return self._filled.is_set()

    def fill(self) -> bool:
        """Make the copies that were left for later, and tell whether those tensors were unchanged until then."""
        try:
            if self._buffer is not None:
                self._buffer.populate()
            for copy in self._later:
                copy.copy_rest()
            return all(copy.is_unchanged() for copy in self._later)
        finally:
            self._later = []
            if self._buffer is not None:
                self._kept = []
            self._filled.set()

    def has_changed(self) -> bool | None:
        """Whether a watched tensor has changed since it was copied, compared bit by bit; ``None`` if none is watched.

        To be called once, before the buffer is used by another snapshot.
        """
        watched, self._watched = self._watched, []
        return any(_differ(copy.target, copy.source, copy.size) for copy in watched) if watched else None

    def wait_for_staging(self) -> None:
        """Wait until all tensors are copied. After that they may change."""
        self._filled.wait()

    def pieces(self) -> Iterator[memoryview]:
        """The bytes of the file in order."""
        # a generator of this object keeps the tensors alive; the views of their memory alone do not
        self._written = []
        for span in zip_layout.spans(self._places, self._data, sealed=self._sealed):
            self._written.append(verify.Written(len(span.data), span.crc_before, span.crc))
            yield span.data

    def problem_in(self, file: BinaryIO) -> str | None:
        """What is wrong with a file that all pieces were written into, or ``None``. Reads all of it."""
        return verify.difference(file, self._written)

    def _copied(
        self,
        found: Sequence[torch_records.Record],
        buffer: StagingBuffer,
        changed_only_by_steps: Iterable[torch.Tensor],
        *,
        watched: bool,
    ) -> list[bytes | memoryview]:
        offsets, end = self._offsets(found)
        begin = buffer.reserve(end)
        memory = _view(begin, end)
        large = {
            tensor.untyped_storage().data_ptr(): tensor
            for tensor in changed_only_by_steps
            if tensor.layout is torch.strided and tensor.nbytes >= _LARGE
        }
        if watched or not large:
            buffer.populate()
        copied: list[bytes | memoryview] = []
        for (_, data), place, offset in zip(found, self._places, offsets, strict=True):
            if isinstance(data, bytes):
                copied.append(data)
                continue
            source, target, size = data.data_ptr(), begin + offset, place.size
            tensor = large.get(source) if size >= _LARGE else None
            if tensor is not None:
                copy = _Copy(data, source, target, size, _fingerprint(source, size), tensor, tensor._version)
                (self._watched if watched else self._later).append(copy)
            if tensor is None or watched:
                ctypes.memmove(target, source, size)
            copied.append(memory[offset : offset + size])
        if not self._later:
            self._filled.set()
        return copied

    def _offsets(self, found: Sequence[torch_records.Record]) -> tuple[list[int], int]:
        """Where in the buffer each record is copied to, and the end. Large data can be written from there."""
        alignment, end, offsets = torch_records.alignment(), 0, []
        for (_, data), place in zip(found, self._places, strict=True):
            if place.size >= STAYS:
                end += (place.data - end) % UNIT
            offsets.append(end)
            if not isinstance(data, bytes):
                end += -(-place.size // alignment) * alignment
        return offsets, end

    def _copy_part(self, rotation: Rotation) -> None:
        """Copy the part of the late copies at once that is compared in this save."""
        parts = rotation.next_part([copy.size for copy in self._later])
        for place, (begin, end) in enumerate(parts):
            if begin < end:
                self._later[place] = replace(self._later[place], begin=begin, end=end)
                self._later[place].copy_part()


def _fingerprint(address: int, size: int) -> tuple[bytes, ...]:
    """A few bytes of a large tensor, from four places."""
    places = (address, address + size // 3, address + 2 * size // 3, address + size - _FINGERPRINT)
    return tuple([ctypes.string_at(place, _FINGERPRINT) for place in places])


def _differ(address: int, other: int, size: int) -> bool:
    return size > 0 and bool(_compare()(address, other, size) != 0)


@functools.cache
def _compare() -> Any:
    """C's comparison of two pieces of memory."""
    compare = ctypes.CDLL("msvcrt" if os.name == "nt" else None).memcmp
    compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return compare


def _view(address: int, size: int) -> memoryview:
    """The memory at an address. The caller keeps it alive."""
    return _memory_at(address, size, _WRITABLE) if size else memoryview(b"")
