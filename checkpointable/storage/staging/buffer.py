"""The memory that snapshots are taken into: allocated once, on huge pages, and used again by every save."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys

_POPULATE_WRITE = 23  # Linux 5.14; not in Python's mmap module yet


class StagingBuffer:
    """One stretch of anonymous memory. Copies into kept pages cost a third of copies into fresh ones."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._is_fresh = False

    def reserve(self, size: int) -> int:
        """The address of so many bytes, aligned to a page. What was there before is gone.

        Raises:
            MemoryError: If the system does not give as much.
        """
        if self._memory is None or len(self._memory) < size:
            self._memory = None  # first, so that there are never two
            try:
                self._memory = mmap.mmap(-1, max(size, 1))
            except OSError as error:
                raise MemoryError(f"no room in memory for a copy of {size:,} bytes") from error
            self._is_fresh = True
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):  # a kernel without them
                    self._memory.madvise(mmap.MADV_HUGEPAGE)
        return _address(self._memory)

    def populate(self) -> None:
        """Have the system find the pages in one go, which takes a fifth of the time that one fault a page does."""
        if self._memory is not None and self._is_fresh and sys.platform == "linux":
            self._is_fresh = False
            # by way of ctypes, which lets go of the GIL; a kernel that knows no such advice refuses, and faults as ever
            libc = ctypes.CDLL(None)
            libc.madvise(ctypes.c_void_p(_address(self._memory)), ctypes.c_size_t(len(self._memory)), _POPULATE_WRITE)

    def release(self) -> None:
        """Give the memory back."""
        self._memory = None

    def __deepcopy__(self, memo: dict[int, object]) -> StagingBuffer:
        return StagingBuffer()

    def __reduce__(self) -> tuple[type[StagingBuffer], tuple[()]]:
        return (StagingBuffer, ())


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
