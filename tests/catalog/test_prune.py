"""What ``Checkpoints.prune`` deletes, and what it never deletes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from catalog.conftest import Make, fill_with_text, flip_a_bit

from checkpointable import CheckpointableError, PolicyError, SaveError
from checkpointable.catalog.checkpoints import Checkpoints


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.rglob("*.ckpt"))


def went(found: Checkpoints, **keep: int) -> list[str]:
    return [os.path.basename(path) for path in found.prune(**keep, dry_run=False)]


@pytest.fixture
def run(make: Make, tmp_path: Path) -> Path:
    """Five files of one run; the second is the best."""
    for number, score in enumerate([0.5, 0.1, 0.2, 0.3, 0.4]):
        make(f"{number}.ckpt", batch=number, score=score)
    return tmp_path


def test_prune_by_default_only_says_what_would_go(run: Path) -> None:
    found = Checkpoints(run)
    assert found.prune() == [str(run / name) for name in ("0.ckpt", "2.ckpt", "3.ckpt")]
    assert len(names(run)) == len(found) == 5


def test_prune_deletes_all_but_newest_and_best(run: Path) -> None:
    found = Checkpoints(run)
    assert went(found) == ["0.ckpt", "2.ckpt", "3.ckpt"]
    assert names(run) == ["1.ckpt", "4.ckpt"] == [os.path.basename(info.path) for info in found]


def test_prune_keeps_as_many_as_asked(run: Path) -> None:
    assert went(Checkpoints(run), keep_last=2, keep_best=2) == ["0.ckpt"]


def test_prune_minus_one_keeps_all(run: Path) -> None:
    assert went(Checkpoints(run), keep_last=-1, keep_best=0) == []


def test_prune_keeping_none_still_keeps_what_latest_and_best_return(run: Path) -> None:
    assert went(Checkpoints(run), keep_last=0, keep_best=0) == ["0.ckpt", "2.ckpt", "3.ckpt"]


def test_prune_counts_each_run_for_itself(make: Make, tmp_path: Path) -> None:
    for run_id in ("a", "b"):
        for number in range(2):
            make(f"{run_id}{number}.ckpt", run_id=run_id, batch=number, created=float(number))
    assert went(Checkpoints(tmp_path)) == ["a0.ckpt", "b0.ckpt"]


def test_prune_newest_does_not_verify_keeps_the_newest_that_does(run: Path) -> None:
    flip_a_bit(str(run / "4.ckpt"))
    assert went(Checkpoints(run), keep_best=0) == ["0.ckpt", "2.ckpt"]
    assert names(run) == ["1.ckpt", "3.ckpt", "4.ckpt"]


def test_prune_best_does_not_verify_keeps_the_best_that_does(run: Path) -> None:
    flip_a_bit(str(run / "1.ckpt"))
    assert went(Checkpoints(run)) == ["0.ckpt", "3.ckpt"]
    assert names(run) == ["1.ckpt", "2.ckpt", "4.ckpt"]


def test_prune_nothing_verifies_deletes_nothing(run: Path) -> None:
    for path in run.glob("*.ckpt"):
        flip_a_bit(str(path))
    assert went(Checkpoints(run)) == []
    assert went(Checkpoints(run), keep_last=0, keep_best=0) == []


def test_prune_weights_only_newest_does_not_stand_for_a_resumable_one(make: Make, tmp_path: Path) -> None:
    for number in range(3):
        make(f"{number}.ckpt", batch=number, weights_only=number == 2)
    assert went(Checkpoints(tmp_path)) == ["0.ckpt", "2.ckpt"]


def test_prune_run_of_weights_only_keeps_its_newest(make: Make, tmp_path: Path) -> None:
    for number in range(3):
        make(f"{number}.ckpt", batch=number, weights_only=True)
    assert went(Checkpoints(tmp_path)) == ["0.ckpt", "1.ckpt"]


def test_prune_files_of_others_stay(run: Path) -> None:
    torch.save({"state_dict": {}}, run / "plain.ckpt")
    fill_with_text(str(run / "text.ckpt"))
    (run / "notes.txt").write_text("keep me")
    went(Checkpoints(run))
    assert names(run) == ["1.ckpt", "4.ckpt", "plain.ckpt", "text.ckpt"]
    assert (run / "notes.txt").exists()


def test_prune_manual_files_stay_and_do_not_count(make: Make, run: Path) -> None:
    make("early.ckpt", kind="manual")
    make("late.ckpt", kind="manual", batch=9)
    went(Checkpoints(run))
    assert names(run) == ["1.ckpt", "4.ckpt", "early.ckpt", "late.ckpt"]


def test_prune_files_that_are_kept_for_ever_stay(make: Make, run: Path) -> None:
    make("epoch.ckpt", kind="epoch", reasons=["epoch", "kept_epoch"])
    make("periodic.ckpt", kind="epoch", reasons=["epoch"])
    found = Checkpoints(run)
    would_go = [os.path.basename(path) for path in found.prune()]
    assert would_go == went(found) == ["0.ckpt", "periodic.ckpt", "2.ckpt", "3.ckpt"]
    assert went(Checkpoints(run), keep_last=0, keep_best=0) == []
    assert names(run) == ["1.ckpt", "4.ckpt", "epoch.ckpt"]


def test_prune_outdated_file_that_does_not_verify_stays(run: Path) -> None:
    flip_a_bit(str(run / "2.ckpt"))
    found = Checkpoints(run)
    would_go = [os.path.basename(path) for path in found.prune()]
    assert would_go == went(found) == ["0.ckpt", "3.ckpt"]
    assert names(run) == ["1.ckpt", "2.ckpt", "4.ckpt"] == [os.path.basename(info.path) for info in found]


def test_prune_file_replaced_since_it_was_listed_stays(make: Make, run: Path) -> None:
    found = Checkpoints(run)
    os.remove(run / "0.ckpt")
    make("0.ckpt", batch=9, created=5000.0)
    assert went(found) == ["2.ckpt", "3.ckpt"]


def test_prune_file_deleted_since_it_was_listed_is_no_failure(run: Path) -> None:
    found = Checkpoints(run)
    os.remove(run / "0.ckpt")
    assert went(found) == ["2.ckpt", "3.ckpt"]


def test_prune_failures_raise_after_the_rest_is_deleted_and_name_all(run: Path) -> None:
    found = Checkpoints(run)
    for name in ("0.ckpt", "2.ckpt"):
        os.remove(run / name)
        (run / name).mkdir()
    with pytest.raises(SaveError, match=r"(?s)cannot delete 2 .*0\.ckpt: .*2\.ckpt: .*Delete these by hand") as raised:
        found.prune(dry_run=False)
    assert isinstance(raised.value.__cause__, OSError)
    assert not (run / "3.ckpt").exists()
    assert [os.path.basename(info.path) for info in found] == ["0.ckpt", "1.ckpt", "2.ckpt", "4.ckpt"]


def test_prune_file_damaged_since_it_was_listed_stays_and_is_named(run: Path) -> None:
    found = Checkpoints(run)
    fill_with_text(str(run / "0.ckpt"))
    with pytest.raises(CheckpointableError, match=r"(?s)cannot delete 1 .*0\.ckpt: .*Delete these by hand"):
        found.prune(dry_run=False)
    assert names(run) == ["0.ckpt", "1.ckpt", "4.ckpt"]


def test_prune_unusable_numbers_raise_and_say_what_is_allowed(run: Path) -> None:
    with pytest.raises(PolicyError, match=r"keep_last=-2, keep_best='all'; allowed: a count from 0 on, or -1"):
        Checkpoints(run).prune(keep_last=-2, keep_best="all")  # type: ignore[arg-type]
