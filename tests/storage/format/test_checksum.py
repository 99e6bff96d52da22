"""CRC-32 by ISA-L where it is installed, and by zlib elsewhere: the same value."""

from __future__ import annotations

import importlib
import random
import sys
import zlib

import pytest

from checkpointable.storage.format import checksum


def test_checksum_by_isa_l_is_that_of_zlib_for_any_length_and_start():
    isal = pytest.importorskip("isal.isal_zlib")
    assert checksum.crc32 is isal.crc32
    draw = random.Random(0)
    for length in (0, 1, 7, 63, 64, 65, 4095, 4096, 1 << 20):
        content, start = draw.randbytes(length), draw.getrandbits(32)
        assert checksum.crc32(content) == zlib.crc32(content)
        assert checksum.crc32(memoryview(content), start) == zlib.crc32(content, start)


def test_checksum_without_isa_l_is_by_zlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    try:
        assert importlib.reload(checksum).crc32 is zlib.crc32
    finally:
        monkeypatch.undo()
        importlib.reload(checksum)
