"""The links to the newest and the best file, and deleting."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from checkpointable.storage.commit import point, remove


def target_in(directory: Path, name: str = "a.ckpt", content: bytes = b"a") -> Path:
    target = directory / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_point_makes_a_relative_link_to_the_file(tmp_path):
    point(tmp_path / "last.ckpt", target_in(tmp_path))
    assert os.readlink(tmp_path / "last.ckpt") == "a.ckpt"
    assert (tmp_path / "last.ckpt").read_bytes() == b"a"
    assert names(tmp_path) == ["a.ckpt", "last.ckpt"]


def test_point_to_a_file_in_a_subdirectory_is_relative(tmp_path):
    point(tmp_path / "last.ckpt", target_in(tmp_path, "below/a.ckpt"))
    assert os.readlink(tmp_path / "last.ckpt") == os.path.join("below", "a.ckpt")


def test_link_in_a_directory_that_is_moved_still_leads_to_the_file(tmp_path):
    old, new = tmp_path / "old", tmp_path / "else" / "new"
    target = target_in(old)
    point(old / "last.ckpt", target)
    (old / "absolute.ckpt").symlink_to(target)  # the twin: an absolute link does not survive
    new.parent.mkdir()
    shutil.move(old, new)
    assert (new / "last.ckpt").read_bytes() == b"a"
    assert not (new / "absolute.ckpt").exists()


@pytest.mark.parametrize("before", ["link", "dangling link", "file"])
def test_point_over_what_was_there_replaces_it(tmp_path, before):
    link = tmp_path / "last.ckpt"
    if before == "file":
        link.write_bytes(b"old")
    else:
        link.symlink_to(target_in(tmp_path, "old.ckpt", b"old").name if before == "link" else "gone.ckpt")
    point(link, target_in(tmp_path))
    assert link.read_bytes() == b"a"
    assert before != "link" or (tmp_path / "old.ckpt").read_bytes() == b"old"


def test_point_syncs_the_directory_after_the_link_has_its_name(tmp_path, monkeypatch):
    link, target, seen = tmp_path / "last.ckpt", target_in(tmp_path), []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append(os.path.lexists(link) and os.path.samestat(os.fstat(descriptor), os.stat(tmp_path)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    point(link, target)
    assert seen == [True]


def test_point_where_links_are_not_supported_copies_durably(tmp_path, monkeypatch):
    content = os.urandom(100_000)
    target, synced = target_in(tmp_path, content=content), []

    def refused(*_, **__) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(os, "symlink", refused)
    monkeypatch.setattr(os, "fsync", fsync)
    point(tmp_path / "last.ckpt", target)
    assert not (tmp_path / "last.ckpt").is_symlink()
    assert (tmp_path / "last.ckpt").read_bytes() == content
    assert synced[0] == len(content)
    assert names(tmp_path) == ["a.ckpt", "last.ckpt"]


def test_point_that_the_system_refuses_raises_and_leaves_the_old_link(tmp_path, monkeypatch):
    link = tmp_path / "last.ckpt"
    link.symlink_to("old.ckpt")
    target = target_in(tmp_path)

    def refused(*_) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="Input/output error"):
        point(link, target)
    assert os.readlink(link) == "old.ckpt"
    assert names(tmp_path) == ["a.ckpt", "last.ckpt"]


def test_remove_deletes_the_file_and_nothing_else(tmp_path):
    target, other = target_in(tmp_path), target_in(tmp_path, "b.ckpt")
    remove(target)
    assert names(tmp_path) == [other.name]


def test_remove_of_a_missing_file_is_no_error(tmp_path):
    remove(tmp_path / "gone.ckpt")
    remove(tmp_path / "gone" / "gone.ckpt")


def test_remove_of_a_link_leaves_the_file_behind_it(tmp_path):
    target = target_in(tmp_path)
    point(tmp_path / "last.ckpt", target)
    remove(tmp_path / "last.ckpt")
    assert names(tmp_path) == ["a.ckpt"]


def test_remove_syncs_the_directory_after_the_file_is_deleted(tmp_path, monkeypatch):
    target, seen = target_in(tmp_path), []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append((target.exists(), os.path.samestat(os.fstat(descriptor), os.stat(tmp_path))))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    remove(target)
    assert seen == [(False, True)]


def test_remove_that_the_system_refuses_raises(tmp_path):
    (tmp_path / "directory.ckpt").mkdir()
    with pytest.raises(OSError, match=r"directory\.ckpt"):
        remove(tmp_path / "directory.ckpt")
    assert (tmp_path / "directory.ckpt").is_dir()
