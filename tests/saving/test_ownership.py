"""Whose a file is: an error while it is read says nothing about that, and a taken name costs no second write."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from saving.test_save_task import Refusing, Saving, pointed, snapshot, there


@pytest.fixture
def store(tmp_path):
    return Refusing(tmp_path)


@pytest.fixture
def unreadable(monkeypatch):
    """Names of files that cannot be opened, while they are in this set."""
    names: set[str] = set()
    real = os.open

    def opened(path, *args, **kwargs):
        if os.path.basename(os.fspath(path)) in names:
            raise OSError(why[0], os.strerror(why[0]), os.fspath(path))
        return real(path, *args, **kwargs)

    why = [errno.EIO]
    monkeypatch.setattr(os, "open", opened)
    return names, why


@pytest.mark.parametrize("why", [errno.EIO, errno.EMFILE, errno.ESTALE, errno.EACCES], ids=errno.errorcode.get)
def test_outdated_file_that_cannot_be_read_now_is_deleted_by_a_later_save(store, unreadable, why):
    names, reason = unreadable
    reason[0] = why
    run = Saving(store)
    first = run.save(1).path
    names.add(os.path.basename(first))
    result = run.save(2)
    assert result.problem is None
    assert f"cannot delete the outdated checkpoint {first}" in result.messages[0]
    assert run.kept.kept == {result.path}
    names.clear()
    assert run.save(3).messages == []
    assert there(store) == ["epoch_0_batch_3.ckpt"]


def test_link_that_cannot_be_read_now_moves_with_a_later_save(store, unreadable):
    names, _ = unreadable
    run = Saving(store)
    run.save(1)
    names.add("last.ckpt")
    assert "cannot move" in run.save(2).messages[0]
    names.clear()
    run.save(3)
    assert pointed(store) == {"last.ckpt": "epoch_0_batch_3.ckpt"}


def test_outdated_file_that_is_damaged_stays_and_is_named_once(store):
    run = Saving(store)
    first = run.save(1).path
    Path(first).write_bytes(Path(first).read_bytes()[:-20])
    assert run.save(2).messages == [f"{first} is outdated, but stays as it is damaged. Delete it by hand."]
    assert run.save(3).messages == []
    assert there(store) == ["epoch_0_batch_1.ckpt", "epoch_0_batch_3.ckpt"]


def test_file_that_another_run_wrote_over_stays_and_is_forgotten(store):
    """The twin: what can be read decides at once."""
    run = Saving(store)
    first = run.save(1).path
    store.write(snapshot(1, "another run"), first, overwrite=True)
    assert run.save(2).messages == []
    assert there(store) == ["epoch_0_batch_1.ckpt", "epoch_0_batch_2.ckpt"]
    assert {file.path for file in run.kept.files} == run.kept.kept


def test_taken_names_are_passed_over_before_anything_is_written(store):
    for _ in range(4):
        Saving(store, filename="x", save_last_k=-1).save(1)
    store.events.clear()
    Saving(store, filename="x", save_last_k=-1).save(1)
    assert [name for what, name in store.events if what == "write"] == ["x-v4.ckpt"]


def test_store_that_calls_every_name_taken_ends_in_a_problem(store):
    def taken(content, path, *, overwrite):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    store.write = taken
    result = Saving(store).save(1)
    assert "names were free and are said to be taken" in result.problem
    assert "choose another dirpath" in result.problem
