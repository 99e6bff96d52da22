"""DDP on two real processes: one file, written once, and every rank knows the same."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import forked
from nets import files

from checkpointable.catalog.info import read_info

HERE = Path(__file__).parent
SCRIPT = HERE / "two_ranks.py"
CALLBACK = HERE / "two_ranks_callback.py"


def run(where, epochs, interval="2"):
    ended, said = forked.run_ranks(SCRIPT, where, epochs, interval, where=where)
    assert ended == [0, 0], said[-3000:]
    return [json.loads((where / f"rank_{rank}.json").read_text()) for rank in (0, 1)]


def test_two_ranks_save_together_resume_together_and_know_the_same(tmp_path):
    zero, one = run(tmp_path, 2)
    assert zero == one
    assert zero["best"] == "best_score_epoch_1.ckpt"
    assert zero["step"] == 8
    assert files(tmp_path) == ["best_score_epoch_1.ckpt", "epoch_1_batch_3.ckpt"]
    assert read_info(tmp_path / "best_score_epoch_1.ckpt").score == 1.0
    again, other = run(tmp_path, 3)
    assert again == other
    assert again["run"] == zero["run"]
    assert again["step"] == 12
    assert again["best"] == "best_score_epoch_2.ckpt"


def test_two_ranks_that_find_out_the_interval_agree_on_it(tmp_path):
    zero, one = run(tmp_path, 6, "auto")
    assert zero == one
    assert zero["step"] == 24
    assert zero["last"] in files(tmp_path)


def test_callback_on_two_killed_ranks_resumes_both_by_the_same_command(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for where, seed, dies_in in ((straight, 1, -1), (killed, 1, 8), (killed, 7, -1)):
        where.mkdir(exist_ok=True)
        ended, said = forked.run_ranks(CALLBACK, where, seed, dies_in, where=where)
        assert ended == [0 if dies_in < 0 else -signal.SIGKILL] * 2, said[-3000:]
    assert "resumes after epoch 1, batch 2 of 5, step 7" in said
    assert "resumes after" not in forked.errors_of(where / "output_1").read_text(), "rank 0 says it"
    for rank in (0, 1):
        whole, record = ((where / f"rank_{rank}.txt").read_text().splitlines() for where in (straight, killed))
        assert record == [*whole[:8], *whole[7:]], "one batch was trained after the file, and again"
    assert files(killed / "runs") == ["epoch_1_batch_2.ckpt", "epoch_1_batch_5.ckpt"]  # resumed from, and newest


def test_batch_on_which_nothing_is_due_has_no_collective_more_and_a_save_has_some(tmp_path):
    """The eighth batch is saved, and the next ones ask whether that save is done."""
    ended, said = forked.run_ranks(HERE / "counted_ranks.py", tmp_path, where=tmp_path)
    assert ended == [0, 0], said[-3000:]
    found = json.loads((tmp_path / "output_0").read_text())
    assert found["with"][:7] == found["without"][:7]
    assert found["with"][7] > found["without"][7]


def test_rank_that_does_not_come_to_a_save_is_named_and_the_others_end(tmp_path):
    """The group itself would wait for half an hour."""
    ended, said = forked.run_ranks(HERE / "slow_rank.py", tmp_path, 5, "hangs", where=tmp_path, ranks=3)
    assert ended == [1, 1, 3]
    assert "SaveError: rank 2 has not come to the save after epoch 0, batch 2, step 2 within 5 s." in said
    assert "pass a larger save_timeout" in said
    assert files(tmp_path) == []


def test_rank_that_dies_before_a_save_is_not_said_to_be_late(tmp_path):
    ended, said = forked.run_ranks(HERE / "slow_rank.py", tmp_path, 600, "dies", where=tmp_path, ranks=3)
    assert ended == [1, 1, 3]
    assert "SaveError: another rank has ended before the save after epoch 0, batch 2, step 2." in said
    assert "pass a larger save_timeout" not in said
