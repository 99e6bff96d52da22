"""A job that SLURM starts again: the fit that was interrupted goes on, and no other takes its file."""

from __future__ import annotations

import csv
import os

import lightning as L
import pytest
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from nets import load, loader, trainer
from slurm_job import Recorded, Sending, commands, fit, start_job, start_process

from checkpointable import CheckpointableWarning, latest
from checkpointable.saving import requeued


@pytest.fixture(autouse=True)
def job(tmp_path, monkeypatch):
    start_job(tmp_path, monkeypatch)


def test_twin_job_without_the_note_starts_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(requeued, "note", lambda *_: None)
    fit(tmp_path, Recorded(dirpath=tmp_path / "run"), Sending("on_after_backward", 3))
    start_process(monkeypatch, restarts=1)
    again = Recorded(dirpath=tmp_path / "run")
    fit(tmp_path, again)
    assert again.seen[0][:3] == ("train", 0, 0)


class Failing(L.Callback):
    """Ends a training as the failure of a machine does: nothing is saved, and no hook of the end is called."""

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == 5:
            raise RuntimeError("the machine fails")


def test_job_of_a_machine_that_failed_goes_on_from_its_newest_file_among_those_of_other_runs(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="the machine fails"):
        fit(tmp_path, Recorded(dirpath=tmp_path / "runs", save_interval=2), Failing())
    start_process(monkeypatch, restarts=0)
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    fit(tmp_path, Recorded(dirpath=tmp_path / "runs", save_interval=2))
    start_process(monkeypatch, restarts=1)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    again = Recorded(dirpath=tmp_path / "runs", save_interval=2)
    fit(tmp_path, again)
    assert again.seen[0][:3] == ("train", 0, 4)


def trained_batches(nets):
    return [len([seen for seen in net.seen if seen[0] == "train"]) for net in nets]


@pytest.mark.parametrize("dirpaths", [("first", "second"), (None, None)])
def test_interrupted_fit_goes_on_and_one_that_had_ended_is_trained_again(tmp_path, monkeypatch, dirpaths):
    def nets():
        return [Recorded(dirpath=None if name is None else tmp_path / name) for name in dirpaths]

    first, second = nets()
    fit(tmp_path, first)
    fit(tmp_path, second, Sending("on_after_backward", 3))
    start_process(monkeypatch, restarts=1)
    again = nets()
    assert [fit(tmp_path, net) for net in again] == [None, None]
    assert trained_batches(again) == [12, 8]


def test_interrupted_fit_goes_on_by_its_directory_where_the_script_skips_an_earlier_one(tmp_path, monkeypatch):
    fit(tmp_path, Recorded(dirpath=tmp_path / "first"))
    fit(tmp_path, Recorded(dirpath=tmp_path / "second"), Sending("on_after_backward", 3))
    start_process(monkeypatch, restarts=1)
    again = Recorded(dirpath=tmp_path / "second")
    fit(tmp_path, again)
    assert trained_batches([again]) == [8]


def test_shorter_fit_in_the_same_directory_before_the_interrupted_one_does_not_take_its_file(tmp_path, monkeypatch):
    fit(tmp_path, Recorded(dirpath=tmp_path / "run"), max_epochs=1)
    fit(tmp_path, Recorded(dirpath=tmp_path / "run"), Sending("on_after_backward", 8), max_epochs=3)
    start_process(monkeypatch, restarts=1)
    again = [Recorded(dirpath=tmp_path / "run") for _ in range(2)]
    assert [fit(tmp_path, net, max_epochs=epochs) for net, epochs in zip(again, (1, 3), strict=True)] == [None, None]
    assert trained_batches(again) == [6, 9]


def test_fit_that_does_not_save_is_counted_and_takes_no_file_of_another(tmp_path, monkeypatch):
    def trial():
        made = trainer(tmp_path, plugins=[SLURMEnvironment()], enable_checkpointing=False)
        made.fit(Recorded(), loader(6, shuffle=True))

    trial()
    fit(tmp_path, Recorded(), Sending("on_after_backward", 3))
    start_process(monkeypatch, restarts=1)
    trial()
    again = Recorded()
    fit(tmp_path, again)
    assert trained_batches([again]) == [8]


def test_file_of_lightnings_own_earlier_requeue_does_not_take_the_place_of_the_newer_run(tmp_path, monkeypatch):
    fit(tmp_path, Recorded(dirpath=tmp_path / "run", save_on_exception=False), Sending("on_after_backward", 1))
    assert list(tmp_path.glob("hpc_ckpt*"))
    start_process(monkeypatch, restarts=0)
    fit(tmp_path, Recorded(dirpath=tmp_path / "run"), Sending("on_after_backward", 3))
    start_process(monkeypatch, restarts=1)
    again = Recorded(dirpath=tmp_path / "run")
    fit(tmp_path, again)
    assert load(again.last_model_path)["checkpointable"]["run_id"]
    assert trained_batches([again])[0] < 8


def test_signal_after_the_last_batch_requeues_the_job_which_finds_the_run_ended(tmp_path, monkeypatch):
    assert fit(tmp_path, Recorded(dirpath=tmp_path / "run"), Sending("on_train_end", 0)) is None
    assert commands(tmp_path) == ["requeue 77"]
    start_process(monkeypatch, restarts=1)
    again = Recorded(dirpath=tmp_path / "run")
    fit(tmp_path, again)
    assert trained_batches([again]) == [0]


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_note_that_cannot_be_read_is_told_and_the_run_starts_anew(tmp_path, monkeypatch, content):
    fit(tmp_path, Recorded(dirpath=tmp_path / "run"), Sending("on_after_backward", 3))
    (note,) = tmp_path.glob(".checkpointable-slurm-*.json")
    note.write_text(content)
    start_process(monkeypatch, restarts=1)
    again = Recorded(dirpath=tmp_path / "run")
    with pytest.warns(CheckpointableWarning, match="cannot read"):
        fit(tmp_path, again)
    assert again.seen[0][:3] == ("train", 0, 0)


def test_without_a_dirpath_the_job_goes_on_in_the_directory_of_its_first_start(tmp_path, monkeypatch):
    stopped, again = Recorded(), Recorded()
    fit(tmp_path, stopped, Sending("on_after_backward", 3))
    start_process(monkeypatch, restarts=1)
    fit(tmp_path, again)
    assert os.path.dirname(again.last_model_path) == os.path.dirname(stopped.last_model_path)
    assert again.seen[0][:3] == ("train", 0, 4)


def test_ckpt_path_of_the_script_wins(tmp_path, monkeypatch):
    fit(tmp_path, Recorded(dirpath=tmp_path / "other"), max_epochs=1)
    fit(tmp_path, Recorded(dirpath=tmp_path / "run"), Sending("on_after_backward", 3))
    start_process(monkeypatch, restarts=1)
    net = Recorded(dirpath=tmp_path / "run")
    made = trainer(tmp_path, plugins=[SLURMEnvironment()], max_epochs=2)
    made.fit(net, loader(6), loader(4), ckpt_path=latest(tmp_path / "other"))
    assert net.seen[0][:3] == ("train", 1, 0)


def test_note_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "root").write_text("a file in the way")
    with pytest.warns(CheckpointableWarning, match="it starts a new run unless fit gets a ckpt_path"):
        fit(tmp_path / "root" / "below", Recorded(dirpath=tmp_path / "run"), max_epochs=1)


def test_job_that_is_started_again_goes_on_in_the_log_of_its_run(tmp_path, monkeypatch):
    logged = {"log_every_n_steps": 1, "max_epochs": 2}
    with pytest.raises(RuntimeError, match="the machine fails"):
        fit(tmp_path, Recorded(save_interval=2), Failing(), logger=CSVLogger(tmp_path), **logged)
    start_process(monkeypatch, restarts=1)
    fit(tmp_path, Recorded(save_interval=2), logger=CSVLogger(tmp_path), **logged)
    with open(tmp_path / "lightning_logs/version_0/metrics.csv", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["train_loss_step"]] == list(range(12))
    assert [it.name for it in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]
