"""What ``best`` gives, and what it says about the files it skips."""

from __future__ import annotations

import linecache
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from catalog.conftest import DAMAGE, Make, fill_with_text, flip_a_bit

from checkpointable import CheckpointableWarning, CheckpointFileError, Checkpoints, MonitorError
from checkpointable.catalog.select import best


def test_best_missing_path_is_none(tmp_path: Path) -> None:
    assert best(tmp_path / "not" / "there") is None


def test_best_without_a_scored_file_is_none(make: Make, tmp_path: Path) -> None:
    make("a.ckpt")
    assert best(tmp_path) is None


def test_best_mode_min_is_the_lowest_and_zero_is_a_score(make: Make, tmp_path: Path) -> None:
    make("a.ckpt", batch=1, score=0.5)
    zero = make("b.ckpt", batch=2, score=0.0)
    make("c.ckpt", batch=3, score=0.1)
    assert best(tmp_path) == zero


def test_best_mode_max_is_the_highest(make: Make, tmp_path: Path) -> None:
    high = make("a.ckpt", batch=1, score=0.5, monitor="accuracy", mode="max")
    make("b.ckpt", batch=2, score=-0.9, monitor="accuracy", mode="max")
    assert best(tmp_path) == high


def test_best_nan_is_never_best(make: Make, tmp_path: Path) -> None:
    make("a.ckpt", batch=1, score=math.nan)
    number = make("b.ckpt", batch=2, score=9.0)
    make("c.ckpt", batch=3, score=math.nan)
    assert best(tmp_path) == number
    os.remove(number)
    assert best(tmp_path) is None


def test_best_among_equals_is_the_earlier(make: Make, tmp_path: Path) -> None:
    make("a.ckpt", batch=2, score=0.5)
    earlier = make("b.ckpt", batch=1, score=0.5)
    assert best(tmp_path) == earlier


def test_best_without_monitor_takes_that_of_the_newest_scored_file(make: Make, tmp_path: Path) -> None:
    make("a.ckpt", batch=1, score=0.1, monitor="val_loss")
    newest = make("b.ckpt", batch=2, score=0.9, monitor="accuracy", mode="max")
    make("c.ckpt", batch=3)
    expected = r"by 'accuracy' \(mode='max'\), .*Not compared: 'val_loss' \(mode='min'\)\. Pass the monitor you mean"
    with pytest.warns(CheckpointableWarning, match=expected):
        assert best(tmp_path) == newest


def test_best_with_monitor_judges_by_it(make: Make, tmp_path: Path) -> None:
    loss = make("a.ckpt", batch=1, score=0.1, monitor="val_loss")
    make("b.ckpt", batch=2, score=0.9, monitor="accuracy", mode="max")
    assert best(tmp_path, "val_loss") == loss


@pytest.mark.parametrize("choose", [best, lambda path, monitor: Checkpoints(path).best(monitor)])
def test_best_by_a_monitor_without_scores_names_those_that_have_some(make: Make, tmp_path: Path, choose: Any) -> None:
    assert choose(tmp_path, "accuracy") is None  # nothing is saved yet
    make("a.ckpt", batch=1, score=0.1, monitor="val_loss")
    make("b.ckpt", batch=2, score=0.9, monitor="accuracy", mode="max")
    fill_with_text(make("c.ckpt"))
    with pytest.raises(MonitorError, match=r"monitor='nobody': .*'accuracy' \(mode='max'\), 'val_loss' \(.*\n.*c.ckpt"):
        choose(tmp_path, "nobody")


@pytest.mark.parametrize(("mode", "expected"), [("min", "1.ckpt"), ("max", "2.ckpt")])
def test_best_of_several_runs_is_the_best_of_all(make: Make, tmp_path: Path, mode: str, expected: str) -> None:
    for number, score in enumerate([3.0, 0.1, 4.6]):
        make(f"{number}.ckpt", run_id=f"run{number}", created=number, score=score, mode=mode)
    make("3.ckpt", run_id="unscored", created=9.0)
    assert best(tmp_path) == str(tmp_path / expected)
    assert Checkpoints(tmp_path).best().path == str(tmp_path / expected)  # type: ignore[union-attr]


def test_best_of_runs_with_one_monitor_in_two_modes_compares_one_mode_and_says_so(make: Make, tmp_path: Path) -> None:
    make("a.ckpt", run_id="slip", created=1.0, score=0.1, monitor="accuracy", mode="min")
    right = make("b.ckpt", run_id="right", created=2.0, score=0.9, monitor="accuracy", mode="max")
    make("c.ckpt", run_id="later", created=3.0, score=0.8, monitor="accuracy", mode="max")
    with pytest.warns(CheckpointableWarning, match=r"Not compared: 'accuracy' \(mode='min'\)"):
        assert best(tmp_path) == right


def test_best_of_another_run_is_taken_if_the_better_one_is_damaged(make: Make, tmp_path: Path) -> None:
    old = make("old.ckpt", run_id="old", created=1.0, score=0.9)
    flip_a_bit(make("new.ckpt", run_id="new", created=2.0, score=0.1))
    with pytest.warns(CheckpointableWarning, match=r"new\.ckpt: .*is .*old\.ckpt\. Replace"):
        assert best(tmp_path) == old


def test_best_weights_only_counts(make: Make, tmp_path: Path) -> None:
    weights = make("a.ckpt", batch=1, score=0.1, weights_only=True)
    make("b.ckpt", batch=2, score=0.9)
    assert best(tmp_path) == weights


def test_best_better_file_that_does_not_verify_is_named(make: Make, tmp_path: Path) -> None:
    flip_a_bit(make("a.ckpt", batch=1, score=0.1))
    second = make("b.ckpt", batch=2, score=0.2)
    flip_a_bit(make("c.ckpt", batch=3, score=0.3))
    with pytest.warns(CheckpointableWarning, match=r"a\.ckpt: .*is .*b\.ckpt\. Replace the skipped file") as caught:
        assert best(tmp_path) == second
    assert len(caught) == 1
    assert linecache.getline(__file__, caught[0].lineno).strip() == "assert best(tmp_path) == second"


def test_best_unreadable_file_is_named_if_newer_and_not_if_older(make: Make, tmp_path: Path) -> None:
    good = make("good.ckpt", created=5000.0, score=0.1)
    bad = make("bad.ckpt", batch=1)
    fill_with_text(bad)
    os.utime(bad, (4000, 4000))
    assert best(tmp_path) == good
    os.utime(bad, (6000, 6000))
    with pytest.warns(CheckpointableWarning, match=r"bad\.ckpt"):
        assert best(tmp_path) == good


def test_best_nothing_verifies_is_none_after_the_warnings(make: Make, tmp_path: Path) -> None:
    flip_a_bit(make("a.ckpt", score=0.1))
    with pytest.warns(CheckpointableWarning, match="Pass the path of an intact checkpoint"):
        assert best(tmp_path) is None


def test_best_files_of_plain_lightning_are_skipped_silently(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "plain.ckpt")
    assert best(tmp_path) is None


def test_best_file_is_judged_itself(make: Make) -> None:
    make("better.ckpt", score=0.1)
    worse = make("worse.ckpt", score=0.9)
    assert best(worse) == worse
    assert best(make("unscored.ckpt")) is None


@pytest.mark.parametrize("damage", ["bit", "truncated", "empty"])
def test_best_damaged_file_is_none_with_a_warning(make: Make, damage: str) -> None:
    path = make("bad.ckpt", score=0.1)
    spoil, why = DAMAGE[damage]
    spoil(path)
    with pytest.warns(CheckpointableWarning, match=why):
        assert best(path) is None


def test_best_file_of_another_kind_raises_and_says_what_to_pass(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are no weights\n")
    with pytest.raises(CheckpointFileError, match="Pass the directory that the checkpoints are in"):
        best(tmp_path / "notes.txt")
