"""Locks on what is being written, also where the system has none for files, as on Windows."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.storage import commit, commit_directory, locks


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


def hold(path: Path, what: str) -> int:
    """Let a forked process lock it until it is killed, and return its number."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        with getattr(locks, what)(path):
            os.write(writing, b"locked")
            time.sleep(3600)
        os._exit(1)
    assert os.read(reading, 6) == b"locked"
    os.close(reading)
    os.close(writing)
    return process


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize("what", ["locked_file", "locked_directory"])
@pytest.mark.usefixtures("kind")
def test_what_a_living_process_writes_is_left_and_what_it_leaves_is_swept(tmp_path, dead, what):
    path = temporary(tmp_path, dead)  # by its name that of a dead one: the lock alone decides
    writer = hold(path, what)
    try:
        commit.prepare(tmp_path)
        assert path.exists()
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    commit.prepare(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.usefixtures("kind")
def test_what_a_living_process_writes_would_be_swept_without_its_lock(tmp_path, dead):
    """The twin."""
    path = temporary(tmp_path, dead)
    path.write_bytes(b"half")
    commit.prepare(tmp_path)
    assert not path.exists()


@pytest.mark.usefixtures("kind")
def test_commit_leaves_no_file_of_a_lock(tmp_path):
    commit.commit(tmp_path / "a.ckpt", lambda file: file.write(b"new"), problem=lambda _: None, overwrite=False)
    commit_directory.commit(tmp_path / "b.ckpt", lambda folder: (folder / "one").write_bytes(b"1"))
    assert names(tmp_path) == ["a.ckpt", "b.ckpt"]
    assert (tmp_path / "a.ckpt").read_bytes() == b"new"


def test_file_of_a_lock_that_was_left_alone_is_swept(tmp_path, dead):
    alone, mine = (Path(f"{temporary(tmp_path, it)}{locks.BESIDE}") for it in (dead, os.getppid()))
    alone.touch()
    mine.touch()
    commit.prepare(tmp_path)
    assert names(tmp_path) == [mine.name]
