"""Memory that the system has promised and not provided yet."""

from __future__ import annotations

import ctypes
import mmap
import sys

_POPULATE_WRITE = 23  # since Linux 5.14; missing in Python's mmap module


def populate(address: int, size: int) -> None:
    """Have the system provide all pages of these bytes at once, in less time than a page fault for each takes.

    Other threads run meanwhile. A kernel that lacks this advice refuses it, and the pages come by faults.
    """
    if sys.platform == "linux":
        start = address - address % mmap.PAGESIZE
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(address + size - start), _POPULATE_WRITE)
