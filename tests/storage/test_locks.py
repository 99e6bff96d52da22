"""Locks on what is being written, also where the system has none for files, as on Windows."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.storage import commit, commit_directory, locks

_HOLD = """
    import sys, time
    from pathlib import Path
    from checkpointable.storage import locks
    if sys.argv[2] == "beside":
        locks.fcntl = None
    with getattr(locks, sys.argv[3])(Path(sys.argv[1])):
        print("locked", flush=True)
        time.sleep(600)
"""


@pytest.fixture(params=["of the system", "beside"])
def kind(request, monkeypatch) -> str:
    """The locks of the system, and those of a system that has none."""
    if request.param == "beside":
        monkeypatch.setattr(locks, "fcntl", None)
    elif locks.fcntl is None:
        pytest.skip("this system has no locks for files")
    return request.param


def temporary(directory: Path, process: int) -> Path:
    return directory / f"{TEMPORARY_PREFIX}{socket.gethostname()}-{process}-0123abcd.tmp"


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def holding(path: Path, kind: str, what: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", textwrap.dedent(_HOLD), str(path), kind.split()[0], what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"locked"
    return process


@pytest.mark.parametrize("what", ["locked_file", "locked_directory"])
def test_what_a_living_process_writes_is_left_and_what_it_leaves_is_swept(tmp_path, kind, what):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path = temporary(tmp_path, dead.pid)  # by its name that of a dead one: the lock alone decides
    writer = holding(path, kind, what)
    try:
        commit.prepare(tmp_path)
        assert path.exists()
        writer.send_signal(signal.SIGKILL)
    finally:
        writer.kill()
        writer.communicate()
    commit.prepare(tmp_path)
    assert names(tmp_path) == []


def test_what_a_living_process_writes_would_be_swept_without_its_lock(tmp_path, kind, monkeypatch):
    """The twin."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path = temporary(tmp_path, dead.pid)
    path.write_bytes(b"half")
    commit.prepare(tmp_path)
    assert not path.exists()


def test_commit_leaves_no_file_of_a_lock(tmp_path, kind):
    commit.commit(tmp_path / "a.ckpt", lambda file: file.write(b"new"), problem=lambda _: None, overwrite=False)
    commit_directory.commit(tmp_path / "b.ckpt", lambda folder: (folder / "one").write_bytes(b"1"))
    assert names(tmp_path) == ["a.ckpt", "b.ckpt"]
    assert (tmp_path / "a.ckpt").read_bytes() == b"new"


def test_file_of_a_lock_that_was_left_alone_is_swept(tmp_path, monkeypatch):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alone, mine = (Path(f"{temporary(tmp_path, it)}{locks.BESIDE}") for it in (dead.pid, os.getppid()))
    alone.touch()
    mine.touch()
    commit.prepare(tmp_path)
    assert names(tmp_path) == [mine.name]
