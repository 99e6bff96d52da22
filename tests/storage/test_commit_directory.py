"""A directory appears under its name whole and durable, or not at all."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.storage import commit as storage
from checkpointable.storage.commit_directory import commit, remove


def fill(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).write_text(name)


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def abandoned(directory: Path, process: int) -> Path:
    leftover = directory / f"{TEMPORARY_PREFIX}{socket.gethostname()}-{process}-0a.tmp"
    leftover.mkdir()
    fill(leftover)
    return leftover


def test_commit_makes_the_directory_and_nothing_else(tmp_path):
    commit(tmp_path / "below" / "a.ckpt", fill)
    assert names(tmp_path / "below") == ["a.ckpt"]
    assert names(tmp_path / "below" / "a.ckpt") == ["one", "two"]


def test_commit_syncs_the_directory_before_and_the_name_after_it_gets_it(tmp_path, monkeypatch):
    storage.make(tmp_path)
    events = []
    for name in ("fsync", "rename"):
        real = getattr(os, name)

        def called(*arguments, real=real, name=name):
            if name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode):
                events.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{arguments[0]}')).suffix}")
            elif name == "rename":
                events.append("rename")
            return real(*arguments)

        monkeypatch.setattr(os, name, called)
    commit(tmp_path / "a.ckpt", fill)
    assert events == ["fsync .tmp", "rename", "fsync "]


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
def test_commit_that_fails_leaves_everything_as_it_was(tmp_path, error):
    def broken(folder: Path) -> None:
        fill(folder)
        assert names(tmp_path) != ["a.ckpt"]
        raise error("the writer broke")

    with pytest.raises(error, match="the writer broke"):
        commit(tmp_path / "a.ckpt", broken)
    assert names(tmp_path) == []


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_commit_leaves_a_name_that_is_taken(tmp_path, make):
    make(tmp_path / "a.ckpt")
    with pytest.raises(FileExistsError):
        commit(tmp_path / "a.ckpt", fill)
    assert names(tmp_path) == ["a.ckpt"]
    assert not (tmp_path / "a.ckpt" / "one").exists()


def test_name_that_is_taken_meanwhile_is_left(tmp_path):
    def slow(folder: Path) -> None:
        fill(folder)
        commit(tmp_path / "a.ckpt", lambda other: (other / "theirs").touch())

    with pytest.raises(FileExistsError):
        commit(tmp_path / "a.ckpt", slow)
    assert names(tmp_path) == ["a.ckpt"]
    assert names(tmp_path / "a.ckpt") == ["theirs"]


def test_removed_directory_is_gone(tmp_path):
    commit(tmp_path / "a.ckpt", fill)
    remove(tmp_path / "a.ckpt")
    assert names(tmp_path) == []


def test_removal_that_is_interrupted_leaves_no_part_under_the_name(tmp_path, monkeypatch):
    commit(tmp_path / "a.ckpt", fill)
    monkeypatch.setattr("shutil.rmtree", lambda path: (_ for _ in ()).throw(OSError("the disk is gone")))
    remove(tmp_path / "a.ckpt")
    (left,) = names(tmp_path)
    assert left.startswith(TEMPORARY_PREFIX)


def test_next_start_sweeps_what_a_dead_process_left(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    abandoned(tmp_path, dead.pid)
    storage.prepare(tmp_path)
    assert names(tmp_path) == []


def test_directory_that_is_locked_is_left_whatever_its_process(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = abandoned(tmp_path, dead.pid)
    descriptor = os.open(left, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        storage.prepare(tmp_path)
        assert names(left) == ["one", "two"]
    finally:
        os.close(descriptor)
