"""The copy of a large tensor in host memory that only optimizer steps change, and whether it changed meanwhile."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from checkpointable.storage.staging import unowned
from checkpointable.storage.staging.unowned import differ

_SAMPLE = 1 << 10
_SAMPLES = 16
_FINGERPRINT = 1 << 6
_WRITABLE = 0x200  # PyBUF_WRITE
_memory_at: Callable[[int, int, int], memoryview] = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
)(("PyMemoryView_FromMemory", ctypes.pythonapi))  # a ctypes array would need a new type for each size, which is slow


@dataclass(eq=False)
class HostCopy:
    """Copied later, or copied at once and compared later."""

    storage: torch.UntypedStorage
    target: int
    size: int
    tensors: Sequence[torch.Tensor]  # those in the storage: joined by ``.data``, each has a count of its own

    def __post_init__(self) -> None:
        self._source = self.storage.data_ptr()
        self._is_whole = True  # so far as it is made
        self._begin = self._end = 0  # of the part that is copied at once, and compared
        self._versions = versions(self.tensors)
        self._fingerprint = _fingerprint(self._source, self.size)

    def copy_part(self, begin: int, end: int) -> None:
        """Copy the part that is compared."""
        self._begin, self._end = begin, end
        if begin < end:
            ctypes.memmove(self.target + begin, self._source + begin, end - begin)

    def copy_rest(self) -> None:
        """Copy the bytes before and after that part, as far as they are still there."""
        self._is_whole = all(
            unowned.copy(self.target + start, self._source + start, stop - start)
            for start, stop in ((0, self._begin), (self._end, self.size))
            if start < stop
        )

    def is_unchanged(self) -> bool:
        """Whether the tensor is unchanged since the snapshot was taken, as far as can be seen after the copy.

        Torch counts changes in place. For those that it does not count (``.data``), samples are compared: the
        fingerprint shows a change before the copy, the comparison with the source one after it. One part was copied
        when the snapshot was taken, and shows any change.
        """
        return (
            self._is_whole
            and (self.storage.data_ptr(), self.storage.nbytes()) == (self._source, self.size)
            and versions(self.tensors) == self._versions
            and _fingerprint(self.target, self.size) == self._fingerprint
            and all(
                unowned.is_same(self._source + at, self.target + at, _SAMPLE)
                for at in range(0, self.size - _SAMPLE + 1, max((self.size - _SAMPLE) // (_SAMPLES - 1), 1))
            )
            and unowned.is_same(self._source + self._begin, self.target + self._begin, self._end - self._begin)
        )

    def has_changed(self) -> bool:
        """Whether the tensor and its copy differ in any bit, wherever torch has moved it."""
        return self.storage.nbytes() != self.size or differ(self.target, self.storage.data_ptr(), self.size)


def versions(tensors: Sequence[torch.Tensor]) -> list[int]:
    """Torch's counts of their changes."""
    return [tensor._version for tensor in tensors]


def view(address: int, size: int) -> memoryview:
    """The memory at an address. The caller keeps it alive."""
    return _memory_at(address, size, _WRITABLE) if size else memoryview(b"")


def _fingerprint(address: int, size: int) -> tuple[bytes, ...]:
    """A few bytes of a large tensor, from four places."""
    places = (address, address + size // 3, address + 2 * size // 3, address + size - _FINGERPRINT)
    return tuple([ctypes.string_at(place, _FINGERPRINT) for place in places])
