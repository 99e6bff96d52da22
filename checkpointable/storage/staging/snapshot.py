"""A checkpoint as it is at one moment: everything that will be in its file, while training goes on.

What is not a tensor is pickled at once; tensors are copied, once, into memory that is kept and used again. The copy of
large ones that only an optimizer step changes can wait: it is made while the next forward and backward run (CheckFreq,
FAST'21; DataStates-LLM, HPDC'24). That such a tensor did not change meanwhile is checked after it, by torch's count
of changes; of those that torch does not count (``.data``), one that touches few elements can be missed.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from checkpointable.storage.format import archive, torch_records, zip_layout
from checkpointable.storage.staging.buffer import Arena

_LARGE = 1 << 16  # smaller tensors are copied at once
_SAMPLE = 1 << 10
_SAMPLES = 16
_GLIMPSE = 1 << 6
_WRITABLE = 0x200  # PyBUF_WRITE
_memory_at: Callable[[int, int, int], memoryview] = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
)(("PyMemoryView_FromMemory", ctypes.pythonapi))  # a ctypes array of each size would be a type of its own, made slowly


@dataclass(frozen=True)
class _Copy:
    """Bytes of a storage that are copied later."""

    source: int
    target: int
    size: int
    glimpse: tuple[bytes, ...]  # of the source, at the moment of the snapshot


class Snapshot:
    """The content of a file.

    Args:
        checkpoint: What is saved.
        metadata: What the file tells about itself; ``None``: nothing.
        arena: Where tensors are copied to. ``None``: they are not copied, and must not change before the file is there.
        steady: Tensors that nothing changes before ``wait`` is called; the copy of these may be made by ``fill``.
        watched: Whether the ``steady`` ones are copied at once, like all others, and kept to see whether they change.

    Raises:
        MemoryError: If there is no room for the copy. Nothing has changed then.
    """

    def __init__(
        self,
        checkpoint: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
        arena: Arena | None = None,
        steady: Iterable[torch.Tensor] = (),
        *,
        watched: bool = False,
    ) -> None:
        found = torch_records.records(checkpoint)
        found += [("version", torch_records.version()), (zip_layout.ID, bytes(zip_layout.ID_SIZE))]
        if metadata is not None:
            found.append((archive.MEMBER, archive.encode(metadata)))
        sizes = [(name, len(data) if isinstance(data, bytes) else data.nbytes()) for name, data in found]
        self._places = zip_layout.lay_out(sizes, alignment=torch_records.alignment())
        self._sealed = metadata is not None
        self._kept: list[torch.UntypedStorage] = [data for _, data in found if isinstance(data, torch.UntypedStorage)]
        self._later: list[_Copy] = []
        self._watched: list[tuple[torch.UntypedStorage, _Copy]] | None = [] if watched else None
        self._steady: list[tuple[torch.Tensor, int]] = []
        self._filled = threading.Event()
        self._arena = arena
        if arena is None:
            self._data = [
                data if isinstance(data, bytes) else _view(data.data_ptr(), data.nbytes()) for _, data in found
            ]
            self._filled.set()
        else:
            self._data = self._copied(found, arena, steady)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return zip_layout.size(self._places, sealed=self._sealed)

    @property
    def is_copy(self) -> bool:
        """Whether it holds copies of the tensors, so that training may continue before the file is there."""
        return self._arena is not None

    @property
    def is_filled(self) -> bool:
        """Whether every tensor is copied."""
        return self._filled.is_set()

    def fill(self) -> bool:
        """Make the copies that could wait; whether no tensor changed meanwhile. On another thread than training's."""
        try:
            if self._arena is not None:
                self._arena.populate()
            for copy in self._later:
                ctypes.memmove(copy.target, copy.source, copy.size)
            return self._is_unchanged()
        finally:
            self._later, self._steady = [], []
            if self._arena is not None:
                self._kept = []
            self._filled.set()

    def has_changed(self) -> bool | None:
        """Whether a watched tensor is not as it was when it was copied, to the last bit; ``None`` if none is watched.

        To be asked once, before the memory of the copy is used again.
        """
        watched, self._watched = self._watched, None
        if not watched:
            return None
        libc = ctypes.CDLL("msvcrt" if os.name == "nt" else None)
        places = [
            (ctypes.c_void_p(it.target), ctypes.c_void_p(it.source), ctypes.c_size_t(it.size)) for _, it in watched
        ]
        return any(libc.memcmp(*place) != 0 for place in places)

    def wait(self) -> None:
        """Wait until every tensor is copied: from then on all of them may change."""
        self._filled.wait()

    def pieces(self) -> Iterator[memoryview]:
        """The bytes of the file in order."""
        # not returned: a generator of this object keeps the tensors alive, which the views of their memory do not
        yield from zip_layout.pieces(self._places, self._data, sealed=self._sealed)

    def _copied(
        self, found: Sequence[torch_records.Record], arena: Arena, steady: Iterable[torch.Tensor]
    ) -> list[bytes | memoryview]:
        alignment = torch_records.alignment()
        padded = [0 if isinstance(data, bytes) else -(-data.nbytes() // alignment) * alignment for _, data in found]
        target = arena.reserve(sum(padded))
        large = {tensor.untyped_storage().data_ptr(): tensor for tensor in steady if tensor.nbytes >= _LARGE}
        if self._watched is not None or not large:
            arena.populate()
        copied: list[bytes | memoryview] = []
        for (_, data), room in zip(found, padded, strict=True):
            if isinstance(data, bytes):
                copied.append(data)
                continue
            source, size = data.data_ptr(), data.nbytes()
            is_steady = source in large and size >= _LARGE
            if is_steady and self._watched is None:
                self._later.append(_Copy(source, target, size, _glimpse(source, size)))
                self._steady.append((large[source], large[source]._version))
            else:
                ctypes.memmove(target, source, size)
            if is_steady and self._watched is not None:
                self._watched.append((data, _Copy(source, target, size, ())))
            copied.append(_view(target, size))
            target += room
        if not self._later:
            self._filled.set()
        return copied

    def _is_unchanged(self) -> bool:
        """By torch's count of changes in place, and, for those that it does not see (``.data``), by samples.

        The few taken at the beginning show changes before the copy; comparing with the source shows those after it.
        """
        return (
            all(tensor._version == version for tensor, version in self._steady)
            and all(_glimpse(copy.target, copy.size) == copy.glimpse for copy in self._later)
            and all(
                ctypes.string_at(copy.source + at, _SAMPLE) == ctypes.string_at(copy.target + at, _SAMPLE)
                for copy in self._later
                for at in range(0, copy.size - _SAMPLE + 1, max((copy.size - _SAMPLE) // (_SAMPLES - 1), 1))
            )
        )


def _glimpse(address: int, size: int) -> tuple[bytes, ...]:
    """A few bytes of a large tensor; taking them costs next to nothing."""
    places = (address, address + size // 3, address + 2 * size // 3, address + size - _GLIMPSE)
    return tuple([ctypes.string_at(place, _GLIMPSE) for place in places])


def _view(address: int, size: int) -> memoryview:
    """Memory as it is at an address; whoever asks keeps it alive."""
    return _memory_at(address, size, _WRITABLE) if size else memoryview(b"")
