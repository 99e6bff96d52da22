"""A file appears under its name intact and durable, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpointable._errors import CheckpointableError, SaveError
from checkpointable.storage import commit as storage
from checkpointable.storage.commit import commit

NEW = b"new" * 5000
GOOD = ["fsync file", "verify", "publish", "fsync directory"]


def fine(path: Path) -> str | None:
    return None


def fill(file) -> None:
    file.write(NEW)


def fail(file) -> None:
    file.write(NEW[:100])
    raise RuntimeError("the writer broke")


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the system is asked to do, in order; every call goes through. The directory is in use already."""
    storage.make(tmp_path)
    events: list[str] = []

    def record(name: str, label: Callable[..., str]) -> None:
        real = getattr(os, name)

        def called(*arguments, **options):
            result = real(*arguments, **options)
            events.append(label(*arguments))
            return result

        monkeypatch.setattr(os, name, called)

    def synced(descriptor: int) -> str:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            return "fsync directory"
        return "fsync file" if status.st_size == len(NEW) else "fsync of an unfinished file"

    record("fsync", synced)
    record("replace", lambda *_: "publish")
    record("link", lambda *_: "publish")
    return events


def order_of(recorded: list[str], path: Path, *, overwrite: bool) -> list[str]:
    def verify(temporary: Path) -> None:
        recorded.append("verify" if temporary.read_bytes() == NEW else "verify of something else")

    commit(path, fill, problem=verify, overwrite=overwrite)
    return recorded


@pytest.mark.parametrize("overwrite", [True, False])
def test_commit_to_a_free_name_writes_the_file_and_nothing_else(tmp_path, overwrite):
    commit(tmp_path / "a.ckpt", fill, problem=fine, overwrite=overwrite)
    assert (tmp_path / "a.ckpt").read_bytes() == NEW
    assert names(tmp_path) == ["a.ckpt"]


def test_commit_into_a_missing_directory_makes_it(tmp_path):
    commit(tmp_path / "a" / "b" / "c.ckpt", fill, problem=fine, overwrite=False)
    assert (tmp_path / "a" / "b" / "c.ckpt").read_bytes() == NEW


def test_commit_with_overwrite_replaces_the_file(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"old")
    commit(tmp_path / "a.ckpt", fill, problem=fine, overwrite=True)
    assert (tmp_path / "a.ckpt").read_bytes() == NEW
    assert names(tmp_path) == ["a.ckpt"]


def test_commit_while_writing_shows_the_old_file_intact(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"old")

    def look(file) -> None:
        fill(file)
        file.flush()
        assert path.read_bytes() == b"old"

    commit(path, look, problem=fine, overwrite=True)
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt, SystemExit])
def test_commit_of_a_writer_that_raises_leaves_everything_as_it_was(tmp_path, old, error):
    path = tmp_path / "a.ckpt"
    if old is not None:
        path.write_bytes(old)

    def broken(file) -> None:
        file.write(NEW)
        raise error("the writer broke")

    with pytest.raises(error, match="the writer broke"):
        commit(path, broken, problem=fine, overwrite=True)
    assert names(tmp_path) == ([] if old is None else ["a.ckpt"])
    assert old is None or path.read_bytes() == old


def test_writing_in_place_with_a_writer_that_raises_leaves_half_a_file(tmp_path):
    """The twin: what the commit protects from."""
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="the writer broke"), open(path, "wb") as file:
        fail(file)
    assert path.read_bytes() == NEW[:100]


def test_commit_without_the_cleaning_leaves_a_temporary(tmp_path, monkeypatch):
    """The twin: the tests above see a temporary that stays."""
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="the writer broke"):
        commit(tmp_path / "a.ckpt", fail, problem=fine, overwrite=True)
    assert len(names(tmp_path)) == 1


@pytest.mark.parametrize("overwrite", [True, False])
def test_commit_that_does_not_verify_says_why_and_leaves_everything_as_it_was(tmp_path, overwrite):
    path = tmp_path / "a.ckpt"
    (tmp_path / "b.ckpt").write_bytes(b"other")
    with pytest.raises(
        SaveError, match=r"a\.ckpt is damaged after it was written: a bit is wrong\. .*Save to another disk"
    ) as caught:
        commit(path, fill, problem=lambda _: "a bit is wrong", overwrite=overwrite)
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, CheckpointableError)
    assert names(tmp_path) == ["b.ckpt"]


def test_commit_asks_for_problems_of_the_temporary_not_of_the_old_file(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"old")
    asked = []
    commit(path, fill, problem=lambda at: asked.append((at != path, at.read_bytes())), overwrite=True)
    assert asked == [(True, NEW)]


@pytest.mark.parametrize("kind", ["file", "dangling link", "directory"])
def test_commit_without_overwrite_to_a_taken_name_leaves_the_other_untouched(tmp_path, kind):
    path = tmp_path / "a.ckpt"
    if kind == "file":
        path.write_bytes(b"of another run")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    before = path.lstat()
    with pytest.raises(FileExistsError):
        commit(path, fill, problem=fine, overwrite=False)
    assert (path.lstat().st_ino, path.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert names(tmp_path) == ["a.ckpt"]
    assert kind != "file" or path.read_bytes() == b"of another run"


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK])
def test_commit_without_hard_links_still_respects_a_taken_name(tmp_path, monkeypatch, code):
    def refused(*_) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "a.ckpt"
    commit(path, fill, problem=fine, overwrite=False)
    assert path.read_bytes() == NEW
    with pytest.raises(FileExistsError, match=r"a\.ckpt"):
        commit(path, lambda file: file.write(b"later"), problem=fine, overwrite=False)
    assert path.read_bytes() == NEW
    assert names(tmp_path) == ["a.ckpt"]


def test_commit_refused_by_the_system_when_linking_raises_and_leaves_nothing(tmp_path, monkeypatch):
    def refused(*_) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(OSError, match="Input/output error"):
        commit(tmp_path / "a.ckpt", fill, problem=fine, overwrite=False)
    assert names(tmp_path) == []


@pytest.mark.parametrize("failing", ["file", "directory"])
def test_commit_whose_sync_fails_raises(tmp_path, monkeypatch, failing):
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == (failing == "directory"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    (tmp_path / "a.ckpt").write_bytes(b"old")
    with pytest.raises(OSError, match="Input/output error"):
        commit(tmp_path / "a.ckpt", fill, problem=fine, overwrite=True)
    assert names(tmp_path) == ["a.ckpt"]
    assert (tmp_path / "a.ckpt").read_bytes() == (b"old" if failing == "file" else NEW)


@pytest.mark.parametrize("overwrite", [True, False])
def test_commit_syncs_then_verifies_then_publishes_then_syncs_the_directory(tmp_path, recorded, overwrite):
    assert order_of(recorded, tmp_path / "a.ckpt", overwrite=overwrite) == GOOD


def test_commit_without_the_sync_of_the_directory_is_noticed(tmp_path, recorded, monkeypatch):
    """A twin: the recorder sees what is left out."""
    monkeypatch.setattr(storage, "sync_directory", lambda _: None)
    assert order_of(recorded, tmp_path / "a.ckpt", overwrite=True) == GOOD[:-1]


def test_commit_without_the_sync_of_the_file_is_noticed(tmp_path, recorded, monkeypatch):
    """A twin: the recorder sees what is left out."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(storage, "sync_directory", lambda _: recorded.append("fsync directory"))
    assert order_of(recorded, tmp_path / "a.ckpt", overwrite=True) == GOOD[1:]


def test_commit_that_syncs_before_the_last_byte_is_noticed(tmp_path, recorded):
    """A twin: the recorder tells a finished file from an unfinished one."""
    with open(tmp_path / "a", "wb", buffering=0) as file:
        file.write(NEW[:10])
        os.fsync(file.fileno())
    assert recorded == ["fsync of an unfinished file"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
@pytest.mark.parametrize("overwrite", [True, False])
def test_commit_gives_the_permissions_that_the_umask_leaves(tmp_path, umask, mode, overwrite):
    before = os.umask(umask)
    try:
        commit(tmp_path / "a.ckpt", fill, problem=fine, overwrite=overwrite)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.ckpt").stat().st_mode) == mode


def test_sync_directory_that_is_missing_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        storage.sync_directory(tmp_path / "gone")
