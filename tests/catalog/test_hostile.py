"""Files among the checkpoints that are none, and metadata with invalid values."""

from __future__ import annotations

import math
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from catalog.conftest import Make, metadata
from nets import write_archive

from checkpointable import CheckpointFileError, Checkpoints, latest
from checkpointable.catalog.info import read_info
from checkpointable.catalog.scan import Unreadable, infos, inspect
from checkpointable.storage.files import open_file


def test_pipe_among_the_checkpoints_is_skipped_without_waiting(make: Make, tmp_path: Path) -> None:
    good = make("a.ckpt")
    os.mkfifo(tmp_path / "z.ckpt")
    assert latest(tmp_path) == good
    assert [info.path for info in infos(tmp_path)] == [good]
    assert Checkpoints(tmp_path).verify() == {good: None}
    with pytest.raises(CheckpointFileError, match=r"z\.ckpt is not a checkpoint"):
        latest(tmp_path / "z.ckpt")


def test_socket_among_the_checkpoints_is_skipped(make: Make, tmp_path: Path, monkeypatch) -> None:
    good = make("a.ckpt")
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("z.ckpt")
        assert latest(tmp_path) == good
        assert Checkpoints(tmp_path).verify() == {good: None}


def test_open_file_of_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        open_file(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"reasons": None}, "reasons is None"),
    ({"reasons": [1]}, "reasons is [1]"),
    ({"kind": 3}, "kind is 3"),
    ({"epoch": "4"}, "epoch is '4'"),
    ({"batch": 1.5}, "batch is 1.5"),
    ({"step": None}, "step is None"),
    ({"batches": True}, "batches is True"),
    (
        {"lineage": {"attempt": "a", "generation": [], "ancestors": []}},
        "lineage is {'attempt': 'a', 'generation': [], 'ancestors': []}",
    ),
    ({"metrics": [1]}, "metrics is [1]"),
    ({"metrics": {"a": "b"}}, "metrics is {'a': 'b'}"),
    ({"created": "now"}, "created is 'now'"),
    ({"created": math.inf}, "created is inf"),
    ({"created": math.nan}, "created is nan"),
    ({"run_id": ["a"]}, "run_id is ['a']"),
    ({"resumed_from": 1}, "resumed_from is 1"),
    ({"exactness": {}}, "exactness is {}"),
    ({"weights_only": 0}, "weights_only is 0"),
    ({"score": "a"}, "score is 'a'"),
    (
        {"score": {"monitor": "m", "mode": "min", "value": "a"}},
        "score is {'monitor': 'm', 'mode': 'min', 'value': 'a'}",
    ),
    (
        {"score": {"monitor": 1, "mode": None, "value": 0.5}},
        "score is {'monitor': 1, 'mode': None, 'value': 0.5}",
    ),
    ({"score": {"monitor": "m", "value": 0.5}}, "score is {'monitor': 'm', 'value': 0.5}"),
    ({"lineage": [["a"]]}, "lineage is [['a']]"),
    ({"lineage": None}, "lineage is None"),
    ({"base_name": 1}, "base_name is 1"),
    ({"ended": "week"}, "ended is 'week'"),
    ({"versions": ["2"]}, "versions is ['2']"),
]


@pytest.mark.parametrize(("changed", "said"), WRONG, ids=[said for _, said in WRONG])
def test_metadata_of_a_wrong_type_makes_that_file_unreadable_and_no_other(
    make: Make, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    good = make("good.ckpt", score=0.5)
    odd = tmp_path / "odd.ckpt"
    with open(odd, "x+b") as file:
        write_archive({"weight": 1.0}, file, {**metadata(), **changed})
    seen = inspect(str(odd))
    assert isinstance(seen, Unreadable)
    assert seen.problem == f"has metadata of a wrong type: {said}"
    with pytest.raises(CheckpointFileError, match=r"odd\.ckpt has metadata of a wrong type: "):
        read_info(odd)
    listed = Checkpoints(tmp_path)
    assert [info.path for info in listed] == [info.path for info in infos(tmp_path)] == [good]
    assert listed.verify() == {good: None, str(odd): seen.problem}
    assert f"{good}"[-9:] in repr(listed)


def test_metadata_with_several_wrong_fields_names_them_all(make: Make) -> None:
    path = make("a.ckpt", epoch="x", run_id=3, resumed_from=2)
    with pytest.raises(CheckpointFileError, match="wrong type: epoch is 'x', run_id is 3, resumed_from is 2"):
        read_info(path)
