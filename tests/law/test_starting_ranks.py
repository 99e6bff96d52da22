"""Two real processes that are given other checkpoints resume from one, or both raise before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from forked import printed

SCRIPT = Path(__file__).parent / "starting_ranks.py"


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    where = tmp_path_factory.mktemp("started")
    return where, {line["name"]: line["ranks"] for line in printed(SCRIPT, where, where=where)}


def outcomes(ranks: list[dict[str, Any]]) -> list[str]:
    return [rank["outcome"] for rank in ranks]


@pytest.mark.parametrize(
    ("name", "given"),
    [("only_rank_0_looked_in_time", "none"), ("each_another", "{where}/run_1/epoch_0_batch_4.ckpt")],
)
def test_ranks_given_different_files_all_resume_from_that_of_rank_zero_and_say_so(started, name, given):
    where, found = started
    file = f"{where}/run_0/epoch_0_batch_4.ckpt"
    assert outcomes(found[name]) == [f"trained from {file}"] * 2
    (told,) = found[name][0]["told"]
    assert told.endswith(f"  rank 0: {file}\n  rank 1: {given.format(where=where)}")


def test_ranks_of_which_rank_zero_has_no_file_all_refuse_and_name_the_files(started):
    where, found = started
    for outcome in outcomes(found["rank_0_none"]):
        assert outcome.startswith("ResumeError: cannot resume: the ranks were given different checkpoints.")
        assert f"  rank 0: none\n  rank 1: {where}/run_0/epoch_0_batch_4.ckpt\n" in outcome
        assert "use a directory that all machines share" in outcome


def test_file_that_one_rank_lacks_is_refused_on_all_ranks(started):
    zero, one = outcomes(started[1]["other_machine_lacks_it"])
    assert one.startswith("FileNotFoundError: ")
    assert zero.startswith("ResumeError: cannot resume from on_one_machine.ckpt: not every rank can read it.")
    assert "  rank 0: read\n  rank 1: FileNotFoundError: " in zero


def test_file_of_another_run_under_the_same_name_is_refused_on_all_ranks(started):
    zero, one = outcomes(started[1]["other_run_under_the_same_name"])
    assert zero == one
    assert zero.startswith("ResumeError: cannot resume from same_name.ckpt: the ranks have read different files.")
    assert "  rank 0: same_name.ckpt, step 4 of run " in zero
    assert "  rank 1: same_name.ckpt, step 4 of run " in zero


def test_ranks_without_the_check_train_from_files_of_different_runs(started):
    """The twin."""
    assert outcomes(started[1]["twin"]) == ["trained from same_name.ckpt"] * 2
