"""A save where room is short: what would be deleted anyway may go first, or nothing at all."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest
from saving.test_save_task import Refusing, Saving, pointed, snapshot, there

SIZE = snapshot(1).size
MANY = 5000  # values
LARGE = snapshot(1, values=MANY).size
NOBODY = 65534


@pytest.fixture
def store(tmp_path):
    return Refusing(tmp_path)


@pytest.fixture
def run_of_two(store):
    """A run with a best file and a newest one, whose next file will take the places of both."""
    run = Saving(store)
    run.save(1, "best", score=0.5)
    run.save(2)
    return run


def test_task_without_room_writes_nothing_and_says_how_much_is_missing(store):
    run = Saving(store, save_last_k=-1)
    store.room = SIZE + SIZE // 2
    run.save(1)
    result = run.save(2)
    assert result.path is None
    assert (
        f"a checkpoint takes {SIZE:,} bytes, {SIZE // 2:,} are free, {SIZE - SIZE // 2:,} are missing" in result.problem
    )
    assert there(store) == ["epoch_0_batch_1.ckpt"]
    assert ("write", "epoch_0_batch_2.ckpt") not in store.events


def test_task_without_room_never_deletes_the_only_file(store):
    run = Saving(store)
    store.room = SIZE + SIZE // 2
    first = run.save(1)
    result = run.save(2)
    assert "no room in" in result.problem
    assert there(store) == ["epoch_0_batch_1.ckpt"]
    assert result.kept.last_path == first.path


def test_task_without_room_gives_up_the_best_weights_before_the_only_file_to_resume_from(store):
    run = Saving(store, save_weights_only="best")
    run.save(1, "best", score=0.5)
    run.save(1, "newest")
    store.room = 2 * SIZE + SIZE // 2
    assert run.save(2).problem is None
    assert there(store) == ["epoch_0_batch_2.ckpt"]


@pytest.mark.parametrize(
    ("reason", "counted"),
    [("best", "up to 3 .* \\(save_top_k \\+ 1\\)"), ("newest", "up to 4 .* \\(save_last_k \\+ 1\\)")],
)
def test_task_with_little_space_counts_the_files_of_its_kind(store, reason, counted):
    run = Saving(store, save_weights_only="best", save_top_k=2, save_last_k=3)
    store.room = SIZE + SIZE // 2
    [message] = run.save(1, reason, score=0.5 if reason == "best" else None).messages
    assert re.search(counted, message)


def test_task_that_looks_ahead_says_once_what_will_be_missing(store):
    run = Saving(store, save_last_k=3, save_top_k=2)
    store.room = 5 * SIZE
    result = run.save(1)
    assert f"up to 6 checkpoints of {SIZE:,} bytes" in result.messages[0]
    assert f"{SIZE:,} are missing. Free space, keep fewer, or choose another dirpath." in result.messages[0]
    assert run.save(2).messages == []


@pytest.mark.parametrize("unknown", ["room", "size"])
def test_task_without_knowledge_of_the_room_tries(store, unknown):
    if unknown == "room":
        store.refused.add("free_bytes")
    else:
        store.room = 0
    assert Saving(store).save(1, size=unknown != "size").problem is None


@pytest.mark.parametrize("missing", [2 * SIZE + 10_000, SIZE + SIZE // 2], ids=["too little", "all there is"])
def test_task_without_room_deletes_nothing_if_what_may_go_is_not_enough(store, run_of_two, missing):
    before, links = run_of_two.kept, pointed(store)
    store.room = 2 * SIZE + LARGE - missing
    result = run_of_two.save(3, "best", "interval", score=0.4, values=MANY)
    assert f"{missing:,} are missing" in result.problem
    assert "deleted" not in result.problem
    assert there(store) == ["best_val_loss_epoch_0.ckpt", "epoch_0_batch_2.ckpt"]
    assert pointed(store) == links == {"best.ckpt": "best_val_loss_epoch_0.ckpt", "last.ckpt": "epoch_0_batch_2.ckpt"}
    assert result.kept == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="steps down from root")
def test_task_in_a_directory_that_is_locked_for_a_while_forgets_nothing_and_accuses_nobody():
    with tempfile.TemporaryDirectory(prefix="locked-") as made:
        place = Path(made)
        place.chmod(0o777)
        run = Saving(Refusing(place))
        best = run.save(1, "best", score=0.1).path
        before = run.kept
        place.chmod(0)
        os.seteuid(NOBODY)
        try:
            result = run.save(2, "best", score=0.05)
        finally:
            os.seteuid(0)
            place.chmod(0o777)
        assert "Permission denied" in result.problem
        assert result.messages == []
        assert result.kept == before
        assert run.save(3).messages == []
        assert run.kept.best_path == best
