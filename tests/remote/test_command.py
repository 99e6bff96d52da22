"""The shell command on remote directories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from catalog.conftest import flip_a_bit
from cli import made
from remote.conftest import names, put

from checkpointable.cli import watch
from checkpointable.cli.main import main


@pytest.fixture
def run(place, tmp_path):
    """The killed run at a URL, with an outdated file."""
    made.killed_run(tmp_path / "a")
    made.write(tmp_path / "a/epoch_1.ckpt", at=made.at(1), **made.FIRST)
    for path in (tmp_path / "a").iterdir():
        put(f"{place}/{path.name}", path.read_bytes())
    return place


def test_every_look_at_a_remote_run_is_0(run, capsys):
    for line in (["ls"], ["verify"], ["prune"], ["resume", "--dry-run"], ["watch", "--once"]):
        assert main([*line, run]) == 0
    capsys.readouterr()
    assert main(["show", run, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["run"]
    assert [point["value"] for point in answer["curve"]] == [2.0, 1.5, 1.1, 1.2, 0.9, 0.95]
    assert answer["last"]["path"] == f"{run}/epoch_6_batch_0.ckpt"


def test_damage_of_a_remote_file_is_found(run, tmp_path, capsys):
    flip_a_bit(str(tmp_path / "a/epoch_1.ckpt"))
    put(f"{run}/epoch_1.ckpt", (tmp_path / "a/epoch_1.ckpt").read_bytes())
    assert main(["verify", run]) == 1
    assert "damaged  epoch_1.ckpt" in capsys.readouterr().out


def test_outdated_remote_file_is_deleted_when_told_to(run, capsys):
    assert main(["prune", run]) == 0
    assert "epoch_1.ckpt" in names(run)
    assert main(["prune", run, "--yes"]) == 0
    assert names(run) == ["best_val_loss_epoch_4.ckpt", "epoch_6_batch_0.ckpt"]


def test_weights_of_a_remote_checkpoint_are_exported(run, tmp_path):
    target = str(tmp_path / "weights.pt")
    assert main(["export", run, "-o", target]) == 0
    assert torch.equal(torch.load(target, weights_only=True)["weight"], made.WEIGHTS["state_dict"]["weight"])


def test_remote_checkpoint_differs_in_nothing_from_the_local_one(run, tmp_path, capsys):
    assert main(["diff", run, str(tmp_path / "a")]) == 0


def test_store_that_does_not_answer_is_2(wire, s3, capsys):
    wire.cut()
    assert main(["ls", s3]) == 2
    assert "Check that the path is right" in capsys.readouterr().err


def test_watch_goes_on_after_an_outage(wire, s3, tmp_path, capsys, monkeypatch):
    def save(epoch: int) -> None:
        path = Path(made.write(tmp_path / f"{epoch}.ckpt", at=made.at(epoch)))
        put(f"{s3}/{path.name}", path.read_bytes())

    steps = iter([wire.cut, lambda: (wire.mend(), save(2))])

    def pause(_):
        step = next(steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    save(1)
    monkeypatch.setattr(watch, "sleep", pause)
    assert main(["watch", s3]) == 0
    shown = capsys.readouterr()
    assert [line.split()[-1] for line in shown.out.splitlines()] == ["1.ckpt", "2.ckpt"]
    assert "It is asked again." in shown.err


def test_every_command_names_files_below_the_url(run, capsys):
    main(["ls", run])
    assert [Path(line.split()[-1]).name for line in capsys.readouterr().out.splitlines()[1:4]] == [
        *("epoch_1.ckpt", "best_val_loss_epoch_4.ckpt", "epoch_6_batch_0.ckpt")
    ]
