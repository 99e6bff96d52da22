"""Which name stands for the newest or the best file, and which is never taken from what lies there."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from catalog.conftest import metadata
from nets import write_archive

from checkpointable.saving import pointers
from checkpointable.storage import commit
from checkpointable.storage.files import exists, freed_bytes
from checkpointable.storage.local import LocalStore

RUN = "this run"
NOBODY = 65534


def refused(*_, **__):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


@pytest.fixture
def without_links(monkeypatch):
    monkeypatch.setattr(os, "symlink", refused)


def write(store: LocalStore, name: str, **changed) -> str:
    path = store.path(name)
    with open(path, "x+b") as file:
        described = metadata(**{"run_id": RUN, "created": float(len(name)), **changed})
        write_archive({"weight": torch.full((50,), described["created"])}, file, described)
    return path


def lying(store: LocalStore) -> dict[str, str | bytes]:
    """What is there: of links where they lead, of files what is in them."""
    return {
        path.name: os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in Path(store.directory).iterdir()
    }


@pytest.mark.parametrize("how", ["links", "copies"])
def test_point_to_a_file_that_has_the_name_of_the_link_takes_the_next_and_loses_nothing(store, monkeypatch, how):
    if how == "copies":
        monkeypatch.setattr(os, "symlink", refused)
    target = write(store, "last.ckpt")
    content = Path(target).read_bytes()
    pointers.move(store, "last", target, RUN)
    assert lying(store) == {"last.ckpt": content, "last-v1.ckpt": "last.ckpt" if how == "links" else content}


@pytest.mark.parametrize("how", ["same name", "other name"])
def test_commit_point_over_the_target_itself_is_refused(store, how):
    target = Path(write(store, "a.ckpt"))
    link = target
    if how == "other name":
        link = target.with_name("last.ckpt")
        os.link(target, link)  # as where names are told apart by nothing but their case
    with pytest.raises(FileExistsError, match="would replace the file that it leads to"):
        commit.point(link, target)
    assert not link.is_symlink()


def test_copy_that_stood_for_another_file_of_the_run_is_replaced(store, without_links):
    pointers.move(store, "last", write(store, "a.ckpt"), RUN)
    target = write(store, "ab.ckpt")
    pointers.move(store, "last", target, RUN)
    assert sorted(lying(store)) == ["a.ckpt", "ab.ckpt", "last.ckpt"]
    assert lying(store)["last.ckpt"] == Path(target).read_bytes()


def test_copy_whose_original_is_gone_is_replaced(store, without_links):
    old = write(store, "a.ckpt")
    pointers.move(store, "last", old, RUN)
    os.unlink(old)
    pointers.move(store, "last", write(store, "ab.ckpt"), RUN)
    assert sorted(lying(store)) == ["ab.ckpt", "last.ckpt"]
    assert lying(store)["last.ckpt"] == lying(store)["ab.ckpt"]


def test_copy_that_is_resumed_from_and_all_that_is_left_is_never_replaced(store, without_links):
    old = write(store, "a.ckpt")
    pointers.move(store, "last", old, RUN)
    os.unlink(old)
    kept = lying(store)["last.ckpt"]
    target = write(store, "ab.ckpt", resumed_from=store.path("last.ckpt"))
    pointers.move(store, "last", target, RUN)
    pointers.move(store, "last", target, RUN)
    assert sorted(lying(store)) == ["ab.ckpt", "last-v1.ckpt", "last.ckpt"]
    assert lying(store)["last.ckpt"] == kept


def test_copy_that_is_resumed_from_is_replaced_where_the_original_lies_beside_it(store, without_links):
    pointers.move(store, "last", write(store, "a.ckpt"), RUN)
    pointers.move(store, "last", write(store, "ab.ckpt", resumed_from=store.path("last.ckpt")), RUN)
    assert lying(store)["last.ckpt"] == lying(store)["ab.ckpt"]


@pytest.mark.parametrize("changed", [{"kind": "manual"}, {"run_id": "another"}])
def test_file_of_somebody_else_is_never_replaced(store, changed):
    write(store, "best.ckpt", **changed)
    before = lying(store)["best.ckpt"]
    pointers.move(store, "best", write(store, "a.ckpt"), RUN)
    assert lying(store)["best.ckpt"] == before
    assert lying(store)["best-v1.ckpt"] == "a.ckpt"


def test_pipe_of_the_name_is_passed_by_without_waiting(store):
    os.mkfifo(store.path("last.ckpt"))
    pointers.move(store, "last", write(store, "a.ckpt"), RUN)
    assert os.readlink(store.path("last-v1.ckpt")) == "a.ckpt"


def test_point_to_nothing_removes_the_links_that_lead_nowhere_and_no_others(store):
    write(store, "a.ckpt")
    os.symlink("gone.ckpt", store.path("best.ckpt"))
    os.symlink("a.ckpt", store.path("best-v1.ckpt"))
    os.symlink("/not/there/a.ckpt", store.path("best-v2.ckpt"))
    os.symlink("best-v3.ckpt", store.path("best-v3.ckpt"))
    os.symlink("gone.ckpt", store.path("last.ckpt"))
    pointers.move(store, "best", "", RUN)
    left = {"best-v1.ckpt": "a.ckpt", "best-v2.ckpt": "/not/there/a.ckpt", "last.ckpt": "gone.ckpt"}
    assert {name: where for name, where in lying(store).items() if isinstance(where, str)} == left


def test_remove_takes_the_links_that_lead_to_the_file_with_it(store):
    gone, stays = write(store, "a.ckpt"), write(store, "ab.ckpt")
    pointers.move(store, "best", gone, RUN)
    pointers.move(store, "last", stays, RUN)
    store.remove(gone)
    assert {**lying(store), "ab.ckpt": b""} == {"ab.ckpt": b"", "last.ckpt": "ab.ckpt"}


def test_exists_is_false_only_of_what_is_gone(store):
    path = write(store, "a.ckpt")
    os.symlink("circle.ckpt", store.path("circle.ckpt"))
    assert store.exists(path)
    assert not store.exists(store.path("gone.ckpt"))
    assert not store.exists(os.path.join(path, "below"))
    assert not store.exists(store.path("circle.ckpt"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="steps down from root")
def test_exists_in_a_directory_that_is_locked_raises():
    with tempfile.TemporaryDirectory(prefix="locked-") as made:
        os.chmod(made, 0)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(PermissionError):
                exists(os.path.join(made, "a.ckpt"))
        finally:
            os.seteuid(0)


def test_freed_bytes_of_a_file_that_has_another_name_are_none(store):
    path = Path(write(store, "a.ckpt"))
    assert freed_bytes(str(path)) >= path.stat().st_size
    os.link(path, path.with_name("b.ckpt"))
    assert freed_bytes(str(path)) == 0
    shutil.copy(path, path.with_name("c.ckpt"))
    assert freed_bytes(store.path("c.ckpt")) > 0
