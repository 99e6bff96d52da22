"""The law on two real processes: each rank resumes with its own random numbers at its own position."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import forked
import pytest

from checkpointable import latest
from checkpointable.storage.ring_file import read

SCRIPT = Path(__file__).parent / "ranks.py"
MIDDLE, BOUNDARY = "epoch_0_batch_2.ckpt", "epoch_0_batch_5.ckpt"


def trained(where: Path, seed: int, *ckpt_path: str) -> list[dict[str, Any]]:
    """What each rank did in a training in two new processes."""
    where.mkdir()
    ended, said = forked.run_ranks(SCRIPT, where, seed, *ckpt_path, where=where)
    assert ended == [0, 0], said[-3000:]
    return [json.loads((where / f"rank_{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    where = tmp_path_factory.mktemp("ranks") / "straight"
    return where, trained(where, 1)


def batches_after(record: list[Any], batch: int) -> list[Any]:
    """The part of a record after a batch of epoch 0."""
    last = max(number for number, line in enumerate(record) if line[:3] == ["train", 0, batch - 1])
    return record[last + 1 :]


def test_ranks_train_on_different_samples_with_different_randomness(straight):
    _, (zero, one) = straight
    assert zero["weights"] == one["weights"]
    assert zero["random"] != one["random"]
    assert not {i for line in zero["record"][:5] for i in line[3]} & {i for line in one["record"][:5] for i in line[3]}


def test_two_ranks_resumed_inside_an_epoch_are_the_uninterrupted_run(tmp_path, straight):
    where, expected = straight
    for mine, theirs in zip(trained(tmp_path / "resumed", 77, str(where / MIDDLE)), expected, strict=True):
        assert mine["record"] == batches_after(theirs["record"], 2)
        assert {**mine, "record": None} == {**theirs, "record": None}


def test_two_ranks_resumed_after_an_epoch_are_the_uninterrupted_run(tmp_path, straight):
    where, expected = straight
    for mine, theirs in zip(trained(tmp_path / "resumed", 78, str(where / BOUNDARY)), expected, strict=True):
        assert mine["record"] == theirs["record"][theirs["record"].index(mine["record"][0]) :]
        assert mine["record"][0][:3] == ["train", 1, 0]
        assert {**mine, "record": None} == {**theirs, "record": None}


def test_each_of_two_killed_ranks_has_a_trace_and_their_resume_is_confirmed(tmp_path):
    ended, _ = forked.run_ranks(SCRIPT, tmp_path, 1, "kill", where=tmp_path)
    assert ended == [-signal.SIGKILL] * 2
    traces = sorted(tmp_path.glob(".checkpointable-*.trace"))
    assert [trace.name[-len("0.trace") :] for trace in traces] == ["0.trace", "1.trace"]
    records = [read(str(trace)).records for trace in traces]
    assert [sorted(record) for record in records] == [[1, 2, 3]] * 2
    assert records[0] != records[1], "each rank has its own losses"
    ended, said = forked.run_ranks(SCRIPT, tmp_path, 77, latest(tmp_path), where=tmp_path)
    assert ended == [0, 0], said[-3000:]
    assert "resume confirmed: the batch up to the kill gave the same loss, bit for bit" in said
    assert not list(tmp_path.glob(".checkpointable-*.trace"))
