"""The memory of the snapshots: one block that is reused, and grows when it has to."""

from __future__ import annotations

import copy
import ctypes
import pickle
import re
import subprocess
import sys
import threading

import pytest

from checkpointable.storage.staging.buffer import StagingBuffer

CHILD = """
import resource
import torch
from checkpointable.storage.staging.buffer import StagingBuffer
from checkpointable.storage.staging.snapshot import Snapshot

weight = torch.ones(20_000_000)
buffer = StagingBuffer()
small = Snapshot({"weight": weight[:1000].clone()}, None, buffer)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, -1))
try:
    Snapshot({"weight": weight}, None, buffer, [weight])
except MemoryError as error:
    print(error)
whole = Snapshot({"weight": weight}, None)
print(sum(len(piece) for piece in whole.pieces()) == whole.size)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
print(Snapshot({"weight": weight}, None, buffer, [weight]).fill())
"""


def test_reserve_is_aligned_to_a_page_and_used_again() -> None:
    buffer = StagingBuffer()
    address = buffer.reserve(1 << 20)
    ctypes.memset(address, 7, 1 << 20)
    buffer.populate()
    assert address % 4096 == 0
    assert buffer.reserve(1 << 10) == address
    assert buffer.reserve(1 << 20) == address
    assert ctypes.string_at(address, 1 << 20) == b"\7" * (1 << 20)


def test_reserve_of_more_grows() -> None:
    buffer = StagingBuffer()
    buffer.reserve(1 << 12)
    address = buffer.reserve(1 << 24)
    buffer.populate()
    ctypes.memset(address, 1, 1 << 24)
    assert buffer.reserve(1 << 24) == address


@pytest.mark.parametrize("size", [0, 1, 4095, 4097])
def test_reserve_of_few_bytes_can_be_written(size: int) -> None:
    buffer = StagingBuffer()
    ctypes.memset(buffer.reserve(size), 1, size)
    assert ctypes.string_at(buffer.reserve(0), size) == b"\1" * size


def test_populate_keeps_what_is_there() -> None:
    buffer = StagingBuffer()
    address = buffer.reserve(1 << 22)
    ctypes.memset(address, 5, 1 << 22)
    buffer.populate()
    buffer.populate()
    assert ctypes.string_at(address, 1 << 22) == b"\5" * (1 << 22)


def test_populate_of_nothing_does_nothing() -> None:
    StagingBuffer().populate()


def test_release_gives_the_memory_back() -> None:
    buffer = StagingBuffer()
    buffer.reserve(1 << 26)
    before = mapped_bytes()
    buffer.release()
    assert before - mapped_bytes() >= 1 << 26
    assert buffer.reserve(10) % 4096 == 0


def test_growth_never_holds_two() -> None:
    buffer = StagingBuffer()
    buffer.reserve(1 << 26)
    before = mapped_bytes()
    buffer.reserve((1 << 26) + (1 << 20))
    assert mapped_bytes() - before < 1 << 25


def mapped_bytes() -> int:
    if sys.platform != "linux":
        pytest.skip("asks Linux")
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * 4096


@pytest.mark.parametrize("way", [copy.deepcopy, lambda buffer: pickle.loads(pickle.dumps(buffer))])
def test_copy_is_a_new_one(way) -> None:
    buffer = StagingBuffer()
    address = buffer.reserve(1 << 20)
    other = way(buffer)
    assert other.reserve(1 << 20) != address


def test_reserve_of_more_than_there_is_says_how_much_and_can_be_tried_again() -> None:
    if sys.platform != "linux":
        pytest.skip("asks Linux")
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False, timeout=600)
    said, *worked = child.stdout.splitlines()
    assert re.fullmatch(r"not enough memory for a copy of 80,00\d,\d{3} bytes", said), child.stderr
    assert worked == ["True", "True"], child.stderr


def test_prepared_memory_is_what_is_reserved() -> None:
    buffer = StagingBuffer()
    buffer.prepare(1 << 22)
    address = buffer.reserve(1 << 22)
    assert not buffer._is_fresh, "its pages are there"
    assert buffer.reserve(1 << 20) == address


def test_more_than_was_prepared_can_be_reserved() -> None:
    buffer = StagingBuffer()
    buffer.prepare(1 << 12)
    ctypes.memset(buffer.reserve(1 << 22), 3, 1 << 22)


def test_memory_that_cannot_be_prepared_is_asked_for_again() -> None:
    buffer = StagingBuffer()
    buffer.prepare(1 << 60)
    with pytest.raises(MemoryError, match="not enough memory"):
        buffer.reserve(1 << 60)
    ctypes.memset(buffer.reserve(1 << 12), 3, 1 << 12)


def test_prepared_memory_is_released() -> None:
    buffer = StagingBuffer()
    buffer.prepare(1 << 22)
    buffer.release()
    assert buffer._memory is None
    assert buffer._preparing is None


def test_memory_that_is_there_stays_where_it_is() -> None:
    """A save may be reading it."""
    buffer = StagingBuffer()
    address = buffer.reserve(1 << 12)
    ctypes.memset(address, 7, 1 << 12)
    buffer.prepare(1 << 24)
    assert ctypes.string_at(address, 1 << 12) == b"\7" * (1 << 12)
    assert buffer.reserve(1 << 12) == address


def test_memory_is_got_at_the_first_copy_where_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    buffer = StagingBuffer()
    buffer.prepare(1 << 12)
    ctypes.memset(buffer.reserve(1 << 12), 3, 1 << 12)
    buffer.release()
