"""Reads memory that other code may free meanwhile, where that is an error and no crash.

Keeping a storage does not keep its memory: torch replaces that in place, in ``resize_`` and ``share_memory_``. Linux
copies between two places of one process and says if one is gone (``process_vm_readv``), at half the speed of
``memmove``. Where the system has no such call, or refuses it, the memory is read as if nothing freed it.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from typing import Any


class _Range(ctypes.Structure):
    """C's ``struct iovec``."""

    _fields_ = (("address", ctypes.c_void_p), ("size", ctypes.c_size_t))


def copy(target: int, source: int, size: int) -> bool:
    """Copy bytes between two addresses. Returns ``False`` if the source is not there any more."""
    return _read(target, source, size)


def is_same(address: int, own: int, size: int) -> bool:
    """Whether the bytes at an address are still there, and those of a copy."""
    now = ctypes.create_string_buffer(size)
    return _read(ctypes.addressof(now), address, size) and not differ(ctypes.addressof(now), own, size)


def differ(address: int, other: int, size: int) -> bool:
    """Whether two pieces of memory differ."""
    return size > 0 and bool(_compare()(address, other, size) != 0)


def _read(target: int, source: int, size: int) -> bool:
    call = _call()
    while size > 0 and call is not None:
        count = call(os.getpid(), _Range(target, size), 1, _Range(source, size), 1, 0)
        if count <= 0:
            if ctypes.get_errno() == errno.EFAULT:
                return False
            break
        target, source, size = target + count, source + count, size - count
    if size > 0:
        ctypes.memmove(target, source, size)
    return True


@functools.cache
def _call() -> Any:
    call = None if os.name == "nt" else getattr(ctypes.CDLL(None, use_errno=True), "process_vm_readv", None)
    if call is not None:
        call.restype = ctypes.c_ssize_t
        of_ranges = (ctypes.POINTER(_Range), ctypes.c_ulong)
        call.argtypes = (ctypes.c_int, *of_ranges, *of_ranges, ctypes.c_ulong)
    return call


@functools.cache
def _compare() -> Any:
    """C's comparison of two pieces of memory."""
    compare = ctypes.CDLL("msvcrt" if os.name == "nt" else None).memcmp
    compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return compare
