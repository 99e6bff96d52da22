"""A ring on a disk that is full: the process lives, and so does the training."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

from attacks.test_full_disk import MB, fill
from nets import Net, loader, trainer

from checkpointable.storage.ring_file import RingFile, read

SPARSE = """
import mmap, os, sys
from checkpointable.storage import ring_file
def unallocated(path, label):
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, 1 << 20)
    mmap.mmap(descriptor, 0)[9000] = 1
try:
    (unallocated if sys.argv[2] == "sparse" else ring_file.RingFile)(sys.argv[1], b"")
except OSError as error:
    sys.exit(error.errno)
"""


def ended(path, kind: str) -> int:
    return subprocess.run([sys.executable, "-c", SPARSE, str(path), kind], check=False).returncode


def test_ring_on_a_full_disk_is_refused_and_leaves_no_file(tmp_path, small_disk):
    disk = small_disk(2 * MB)
    fill(disk, leave=65536)
    assert ended(disk / "a.trace", "ring") == errno.ENOSPC
    assert sorted(os.listdir(disk)) == ["filler"]


def test_map_without_allocated_room_kills_the_process_on_a_full_disk(tmp_path, small_disk):
    """The twin."""
    disk = small_disk(2 * MB)
    fill(disk, leave=0)
    assert ended(disk / "a.trace", "sparse") == -signal.SIGBUS


def test_ring_on_a_disk_that_fills_up_later_records_on(small_disk):
    disk = small_disk(2 * MB)
    ring = RingFile(str(disk / "a.trace"), b"")
    assert ring.is_mapped
    fill(disk, leave=0)
    for number in range(1, 8193):
        ring.record(number, float(number))
    ring.close()
    assert len(read(str(disk / "a.trace")).records) == 8192


def test_training_beside_a_full_disk_goes_on_and_says_once_that_nothing_is_recorded(tmp_path, small_disk, caplog):
    disk = small_disk(2 * MB)

    class Filling(Net):
        def on_fit_start(self):
            fill(disk, leave=65536)

    net, fitted = Filling(dirpath=disk, save_interval=100, save_last=False), trainer(tmp_path)
    with caplog.at_level("INFO"):
        fitted.fit(net, loader(5))
    said = [record.message for record in caplog.records if "not recorded" in record.message]
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert fitted.global_step == 5
    assert sorted(os.listdir(disk)) == ["filler"]
