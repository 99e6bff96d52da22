"""A ring keeps what was recorded, also of a process that was killed, and gives nothing else back."""

from __future__ import annotations

import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from checkpointable.storage import ring_file
from checkpointable.storage.ring_file import RingFile, bits_of, read, value_of

KILLED = """
import os, signal, sys
from checkpointable.storage import ring_file
if sys.argv[2] == "written":
    ring_file._KEEP_ROOM = set()
ring = ring_file.RingFile(sys.argv[1], b"mine")
assert sys.argv[2] == "any" or ring.is_mapped == (sys.argv[2] == "mapped")
for number in range(1, 101):
    ring.record(number, number / 3)
os.kill(os.getpid(), signal.SIGKILL)
"""
HEAD, SIZE = ring_file._HEAD_BYTES, 16


@pytest.fixture(params=["as the system is", "written"])
def path(request, tmp_path, monkeypatch):
    """Where rings are mapped if the system allows it, and where they never are."""
    if request.param == "written":
        monkeypatch.setattr(ring_file, "_KEEP_ROOM", set())
    return str(tmp_path / "a.trace")


def values(path):
    return {number: value_of(bits) for number, bits in read(path).records.items()}


def test_ring_read_back_gives_its_label_and_values(path):
    ring = RingFile(path, b"mine")
    for number, value in enumerate([0.5, -0.0, 1e-310, math.inf], start=1):
        ring.record(number, value)
    found = read(path)  # while it is still open
    ring.close()
    assert found == read(path)
    assert found.label == b"mine"
    assert {number: value_of(bits) for number, bits in found.records.items()} == {
        1: 0.5,
        2: -0.0,
        3: 1e-310,
        4: math.inf,
    }


def test_ring_that_is_full_overwrites_its_oldest_records(path):
    ring = RingFile(path, b"", records=8)
    for number in range(1, 21):
        ring.record(number, float(number))
    assert values(path) == {number: float(number) for number in range(13, 21)}


def test_nan_is_read_back_bit_for_bit(path):
    other = value_of(bits_of(math.nan) + 5)
    ring = RingFile(path, b"")
    ring.record(1, math.nan)
    ring.record(2, other)
    found = read(path).records
    assert found == {1: bits_of(math.nan), 2: bits_of(math.nan) + 5}


def test_label_is_changed_in_place(path):
    ring = RingFile(path, b"a long label")
    ring.record(1, 0.5)
    ring.relabel(b"short")
    assert read(path).label == b"short"
    assert values(path) == {1: 0.5}


def test_file_that_was_there_is_replaced_by_an_empty_ring(path):
    RingFile(path, b"").record(1, 0.5)
    ring = RingFile(path, b"")
    assert values(path) == {}
    ring.record(2, 0.25)
    assert values(path) == {2: 0.25}


def test_ring_that_is_closed_records_no_more(path):
    ring = RingFile(path, b"")
    ring.record(1, 0.5)
    ring.close()
    ring.close()
    ring.record(2, 0.5)
    ring.relabel(b"other")
    assert read(path) == ring_file.Ring(b"", {1: bits_of(0.5)})


@pytest.mark.parametrize("kind", ["any", "written"])
def test_killed_process_leaves_all_that_it_recorded(tmp_path, kind):
    path = str(tmp_path / "a.trace")
    done = subprocess.run([sys.executable, "-c", KILLED, path, kind], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert values(path) == {number: number / 3 for number in range(1, 101)}


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a tmpfs")
def test_file_on_a_tmpfs_is_mapped():
    path = Path("/dev/shm") / f"ring-{os.getpid()}.trace"
    try:
        assert RingFile(str(path), b"").is_mapped
    finally:
        path.unlink()


def torn(path: str, kept: int) -> None:
    """Overwrite record 1 with 9, which shares its slot, but only the last ``kept`` of 16 bytes stay as they were."""
    ring = RingFile(path, b"", records=8)
    ring.record(1, 0.3)
    before = Path(path).read_bytes()
    ring.record(9, 0.7)
    after = Path(path).read_bytes()
    end = HEAD + 2 * SIZE
    Path(path).write_bytes(after[: end - kept] + before[end - kept : end] + after[end:])


@pytest.mark.parametrize("kept", range(1, 16))
def test_record_that_was_cut_short_is_none(tmp_path, kept):
    path = str(tmp_path / "a.trace")
    torn(path, kept)
    whole = {1: 0.3}, {9: 0.7}  # some bytes of both are equal
    assert values(path) in ({}, *whole)
    if kept == 8:
        assert values(path) == {}


def test_record_that_was_cut_short_is_read_without_the_check(tmp_path, monkeypatch):
    """The twin."""
    path = str(tmp_path / "a.trace")

    def unchecked(content):
        return [(words & 0xFFFFFFFF, bits) for bits, words in struct.iter_unpack("=QQ", content) if words]

    monkeypatch.setattr(ring_file, "_intact", unchecked)
    torn(path, 8)
    assert values(path) == {1: 0.7}


@pytest.mark.parametrize("content", [b"", b"PK", b"\0" * 9000, ring_file._MAGIC, b"\xff" * 5000])
def test_other_file_is_no_ring(tmp_path, content):
    (tmp_path / "a.trace").write_bytes(content)
    assert read(str(tmp_path / "a.trace")) is None


def test_ring_with_garbage_for_records_has_none(tmp_path):
    path = tmp_path / "a.trace"
    RingFile(str(path), b"mine").close()
    path.write_bytes(path.read_bytes()[:HEAD] + struct.pack("=QQ", 7, 5 << 32 | 3) * 10 + b"rest")
    assert read(str(path)) == ring_file.Ring(b"mine", {})


def test_label_that_is_too_long_is_refused_and_leaves_no_file(path):
    with pytest.raises(ValueError, match="does not fit into 4096"):
        RingFile(path, b"x" * 5000)
    assert not os.path.exists(path)


forks = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def record_in_child(ring: RingFile) -> None:
    child = os.fork()
    if child == 0:
        try:
            ring.record(2, 0.25)
            ring.relabel(b"child")
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


class TestForks:
    pytestmark = forks

    def test_forked_process_records_nothing(self, path):
        ring = RingFile(path, b"parent")
        ring.record(1, 0.5)
        record_in_child(ring)
        ring.record(3, 0.75)
        assert read(path).label == b"parent"
        assert values(path) == {1: 0.5, 3: 0.75}

    def test_forked_process_records_if_its_rings_are_not_closed(self, path):
        """The twin."""
        ring = RingFile(path, b"parent")
        ring_file._OPEN.discard(ring)
        record_in_child(ring)
        assert values(path) == {2: 0.25}
