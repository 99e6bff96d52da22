"""Resumes on another number of ranks: each sample of every epoch is trained once, and each such resume is the same."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from forked import printed

SCRIPT = Path(__file__).parent / "other_ranks.py"
SAMPLES = 50


def trained(where: Path, file: str, ranks: int, *others: int, **case: Any) -> list[dict[str, Any]]:
    """What each training did: the one without a stop, and two from the file for each other number of ranks."""
    described = json.dumps({"ranks": ranks, "samples": SAMPLES, "batch_norm": False, **case})
    return printed(SCRIPT, where, described, file, *others, where=where)


@pytest.fixture(scope="module")
def doubled(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("doubled"), "epoch_0_batch_2.ckpt", 1, 2)


def samples(training: dict[str, Any], epoch: int, batches: int | None = None) -> Counter[int]:
    """How often each sample was trained in an epoch, or in its first batches, by all ranks together."""
    lines = [line for rank in training["outcomes"] for line in rank["record"] if line[:2] == ["train", epoch]]
    return Counter(i for line in lines if batches is None or line[2] < batches for i in line[3])


def check_counts(straight: dict[str, Any], resumed: dict[str, Any], batches: int) -> None:
    """Each sample once, but for those that fill up the last round of the ranks that trained it."""
    interrupted, following = samples(straight, 0, batches) + samples(resumed, 0), samples(resumed, 1)
    for found, ranks in ((interrupted, max(straight["ranks"], resumed["ranks"])), (following, resumed["ranks"])):
        assert sorted(found) == list(range(SAMPLES))
        assert found.total() - SAMPLES < ranks


def test_each_sample_of_the_interrupted_and_of_the_next_epoch_is_trained_once_on_twice_the_ranks(doubled):
    check_counts(doubled[0], doubled[1], 2)


def test_two_resumes_on_more_ranks_under_other_seeds_are_the_same(doubled):
    assert doubled[1] == doubled[2]


def test_new_rank_has_random_numbers_of_its_own(doubled):
    zero, one = doubled[1]["outcomes"]
    assert zero["random"] != one["random"]
    assert zero["weights"] == one["weights"]


def test_file_saved_after_such_a_resume_is_exact_on_the_same_ranks(doubled):
    assert doubled[3] == {"ranks": 2, "verdict": "exact", "differences": ["", ""]}


@pytest.mark.sweep
@pytest.mark.parametrize("case", [{}, {"trainer": {"accumulate_grad_batches": 2}}, {"workers": 1}], ids=json.dumps)
@pytest.mark.parametrize("batches", [2, "all"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_any_number_of_ranks_resumes_from_any(tmp_path, ranks, batches, case):
    others = [it for it in (1, 2, 3, 4) if it != ranks]
    done = -(-SAMPLES // (4 * ranks)) if batches == "all" else batches
    straight, *found = trained(tmp_path, f"epoch_0_batch_{done}.ckpt", ranks, *others, **case)
    for one, other, again in zip(found[::3], found[1::3], found[2::3], strict=True):
        assert one == other
        check_counts(straight, one, done)
        assert again["differences"] == [""] * again["ranks"]
