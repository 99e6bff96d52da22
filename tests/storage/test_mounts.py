"""What the system tells of a mount: its kind, its room, whether it can be written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

import pytest
from attacks.conftest import small_disk  # noqa: F401
from storage.test_probes import of, refuse

from checkpointable.storage import mounts
from checkpointable.storage.probes import probe


def test_disk_in_memory_that_is_full_or_read_only_is_a_problem(small_disk):  # noqa: F811
    disk = small_disk(1 << 20)
    kind, room, *_ = mounts.findings(disk, 2 << 20)
    assert (kind.outcome, "is in memory" in kind.detail) == ("warning", True)
    assert (room.outcome, room.cure) == ("problem", f"Free at least {1 << 20:,} bytes, or choose another dirpath.")
    (disk / "large").write_bytes(bytes((1 << 20) - 4096))
    found = probe(disk)
    assert (of("files", found).outcome, of("file of the recorder", found).outcome) == ("problem", "warning")
    assert os.listdir(disk) == ["large"]
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert of("read-only", list(mounts.findings(disk, None))).outcome == "problem"
    (found,) = probe(disk)
    assert "Read-only file system" in found.detail


MOUNTS = r"""
/dev/a / ext4 rw 0 0
/dev/b {0}/with\040space xfs rw 0 0
server:/x {0}/covered overlay rw 0 0
server:/x {0}/covered nfs4 rw 0 0
none {0}/layer overlay rw 0 0
"""


@pytest.mark.parametrize(
    ("name", "outcome", "part"),
    [
        ("with space", "ok", "xfs at "),
        ("with space less", "ok", "ext4 at /."),
        ("covered", "ok", "nfs4 at {0}/covered, over a network"),
        ("layer", "warning", "gone with the container"),
    ],
)
def test_kind_of_file_system_is_that_of_the_innermost_mount(tmp_path, monkeypatch, name, outcome, part):
    (tmp_path / "mounts").write_text(MOUNTS.format(tmp_path).strip())
    (tmp_path / name).mkdir()
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "mounts")
    found = of("file system", list(mounts.findings(tmp_path / name, None)))
    assert found.outcome == outcome
    assert part.format(tmp_path) in found.detail


def test_what_the_system_does_not_tell_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "nothing")
    monkeypatch.setattr(shutil, "disk_usage", refuse(errno.ENOSYS))
    monkeypatch.setattr(os, "statvfs", refuse(errno.ENOSYS))
    assert [finding.outcome for finding in mounts.findings(tmp_path, 1)] == ["unknown"] * 3
