"""A directory that cannot be used is refused at the start; temporary files of dead processes are deleted."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpointable._errors import CheckpointableError, SaveError
from checkpointable.storage.commit import commit, prepare

NOBODY = 65534


@pytest.fixture
def without_privileges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run as a user without privileges, in a directory of the tests' user; paths are relative to it."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(NOBODY)
    except OSError as error:
        pytest.skip(f"root, and cannot step down: {error}")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def dead_process() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.fixture
def process_of_another_user() -> Iterator[int]:
    """The number of a living process of a user that is neither that of the tests nor NOBODY."""
    if os.geteuid() != 0:
        yield 1
        return
    with subprocess.Popen(["sleep", "600"], user=NOBODY - 1) as sleeping:
        yield sleeping.pid
        sleeping.kill()


def temporary(directory: Path, process: object, host: str | None = None) -> Path:
    path = directory / f".checkpointable-{host or socket.gethostname()}-{process}-0123abcd.tmp"
    path.write_bytes(b"half")
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_prepare_of_a_directory_that_is_not_there_makes_it(tmp_path):
    prepare(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_prepare_of_a_directory_with_files_leaves_them(tmp_path):
    for name in ("a.ckpt", "notes.txt", ".hidden", ".checkpointable"):
        (tmp_path / name).write_bytes(name.encode())
    prepare(tmp_path)
    assert {entry.name: entry.read_bytes().decode() for entry in tmp_path.iterdir()} == {
        name: name for name in ("a.ckpt", "notes.txt", ".hidden", ".checkpointable")
    }


@pytest.mark.parametrize("below", ["file", "file/runs", "file/runs/a"])
def test_prepare_where_a_part_is_a_file_names_the_directory_and_the_cure(tmp_path, below):
    (tmp_path / "file").write_bytes(b"kept")
    expected = f"cannot save checkpoints in {tmp_path / below}: a part of that path is a file. Choose another dirpath."
    with pytest.raises(SaveError, match=re.escape(expected)) as caught:
        prepare(tmp_path / below)
    assert isinstance(caught.value.__cause__, OSError)
    assert (tmp_path / "file").read_bytes() == b"kept"


@pytest.mark.parametrize("directory", ["locked", "locked/runs"])
def test_prepare_where_nothing_can_be_written_names_the_reason_and_the_cure(tmp_path, request, directory):
    (tmp_path / "locked").mkdir(mode=0o555)
    request.getfixturevalue("without_privileges")
    expected = (
        f"cannot save checkpoints in {directory}: Permission denied."
        " Choose a dirpath that this process can write, or free space there."
    )
    with pytest.raises(SaveError, match=re.escape(expected)) as caught:
        prepare(Path(directory))
    assert isinstance(caught.value.__cause__, PermissionError)
    assert isinstance(caught.value, CheckpointableError)


def test_prepare_where_all_users_can_write_is_fine_without_privileges(tmp_path, request):
    """The twin: it is the permission that the test above is about."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    request.getfixturevalue("without_privileges")
    prepare(Path("open/runs"))


def test_prepare_with_a_name_that_is_too_long_names_the_reason_and_the_cure(tmp_path):
    with pytest.raises(SaveError, match=r"File name too long\. Choose a dirpath that this process can write"):
        prepare(tmp_path / ("x" * 300))


def test_prepare_deletes_the_temporary_of_a_dead_process(tmp_path, dead_process):
    leftover = temporary(tmp_path, dead_process)
    prepare(tmp_path)
    assert not leftover.exists()


def test_prepare_deletes_what_this_process_left(tmp_path):
    leftover = temporary(tmp_path, os.getpid())
    prepare(tmp_path)
    assert not leftover.exists()


def test_prepare_leaves_the_temporary_that_a_living_process_has_locked(tmp_path):
    other = temporary(tmp_path, os.getppid())
    with locked(other):
        prepare(tmp_path)
        assert other.read_bytes() == b"half"


def test_prepare_deletes_a_temporary_whose_process_number_lives_again(tmp_path):
    """As large as a checkpoint; the lock decides."""
    leftover = temporary(tmp_path, os.getppid())
    prepare(tmp_path)
    assert not leftover.exists()


def test_prepare_leaves_the_link_of_a_living_process(tmp_path):
    """Nobody locks a link."""
    link = temporary(tmp_path, os.getppid())
    link.unlink()
    link.symlink_to("a.ckpt")
    prepare(tmp_path)
    assert link.is_symlink()


def test_prepare_leaves_the_temporary_of_a_living_process_of_another_user(tmp_path, request):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    other = temporary(tmp_path / "open", request.getfixturevalue("process_of_another_user"))
    other.chmod(0o600)
    with locked(other):
        request.getfixturevalue("without_privileges")
        prepare(Path("open"))
        assert Path("open", other.name).exists()


def test_prepare_leaves_the_temporary_of_another_host(tmp_path, dead_process):
    other = temporary(tmp_path, dead_process, host="another-host")
    prepare(tmp_path)
    assert other.read_bytes() == b"half"


def age(path: Path, hours: float) -> None:
    when = time.time() - 3600 * hours
    os.utime(path, (when, when), follow_symlinks=False)


@pytest.mark.parametrize("whose", ["of another host", "of a living process", "a link"])
def test_prepare_deletes_any_temporary_once_it_is_more_than_a_day_old(tmp_path, dead_process, whose):
    """As in containers, where every restart has another host name."""
    process, host = (os.getppid(), None) if whose == "of a living process" else (dead_process, "pod-a")
    old, young = temporary(tmp_path, process, host), temporary(tmp_path, process, f"{host or socket.gethostname()}-b")
    if whose == "a link":
        old.unlink()
        old.symlink_to("a.ckpt")
    age(old, hours=24.1)
    age(young, hours=23.9)
    prepare(tmp_path)
    assert not os.path.lexists(old)
    assert young.exists()


def test_prepare_leaves_an_old_temporary_that_is_locked(tmp_path):
    old = temporary(tmp_path, 1, "pod-a")
    age(old, hours=100)
    with old.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        prepare(tmp_path)
        assert old.exists()
    prepare(tmp_path)
    assert not old.exists()


def test_prepare_leaves_a_locked_temporary_of_a_process_that_seems_dead(tmp_path, dead_process):
    other = temporary(tmp_path, dead_process)
    with other.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        prepare(tmp_path)
        assert other.read_bytes() == b"half"


def test_prepare_deletes_a_link_and_leaves_what_it_leads_to(tmp_path, dead_process):
    (tmp_path / "a.ckpt").write_bytes(b"kept")
    link = temporary(tmp_path, dead_process)
    link.unlink()
    link.symlink_to("a.ckpt")
    prepare(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.ckpt"}


@pytest.fixture
def without_locks(monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)


@pytest.mark.usefixtures("without_locks")
def test_commit_without_locks_writes_the_file(tmp_path):
    commit(tmp_path / "a.ckpt", lambda file: file.write(b"new"), problem=lambda _: None, overwrite=False)
    assert (tmp_path / "a.ckpt").read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.usefixtures("without_locks")
def test_prepare_without_locks_goes_by_the_age(tmp_path, dead_process):
    old, young = temporary(tmp_path, dead_process, "pod-a"), temporary(tmp_path, dead_process)
    age(old, hours=25)
    prepare(tmp_path)
    assert not old.exists()
    assert young.exists()


def test_commit_whose_temporary_is_deleted_before_it_is_locked_makes_it_again(tmp_path, monkeypatch):
    real, deleted = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        if not deleted:
            [made] = tmp_path.glob(".checkpointable-*")
            deleted.append(made)
            made.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    commit(tmp_path / "a.ckpt", lambda file: file.write(b"new"), problem=lambda _: None, overwrite=False)
    assert len(deleted) == 1
    assert (tmp_path / "a.ckpt").read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("host", ["node-3", "node-3-17", "a.b-c"])
def test_prepare_on_a_host_with_dashes_in_its_name_deletes_its_own(tmp_path, monkeypatch, dead_process, host):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    mine, other = temporary(tmp_path, dead_process), temporary(tmp_path, dead_process, host="node")
    prepare(tmp_path)
    assert not mine.exists()
    assert other.exists()


@pytest.mark.parametrize("name", [".checkpointable-", ".checkpointable-x", ".checkpointable-a-b-c.tmp"])
def test_prepare_leaves_files_that_only_look_like_temporaries(tmp_path, name):
    (tmp_path / name).write_bytes(b"of another program")
    prepare(tmp_path)
    assert (tmp_path / name).read_bytes() == b"of another program"
