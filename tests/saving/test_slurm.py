"""SLURM's signal before the end of a job, with a ``scontrol`` of our own on the path: saved, requeued, gone on with."""

from __future__ import annotations

import os
import signal

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment
from nets import Net, files, load, loader, trainer

from checkpointable import CheckpointableWarning, latest
from checkpointable.catalog.info import read_info
from checkpointable.saving import requeued

ONE_TASK = {
    "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0", "SLURM_RESTART_COUNT": "0",
}  # fmt: skip


@pytest.fixture(autouse=True)
def job(tmp_path, monkeypatch):
    """A process of a job, and the commands that its ``scontrol`` gets."""
    commands = tmp_path / "bin" / "scontrol"
    commands.parent.mkdir()
    commands.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/commands\n')
    commands.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands.parent}{os.pathsep}{os.environ['PATH']}")
    for name, value in ONE_TASK.items():
        monkeypatch.setenv(name, value)
    start_process(monkeypatch, restarts=0)


def start_process(monkeypatch, *, restarts):
    """As if the job's process had just begun."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    monkeypatch.setattr(requeued, "_NOTED", [])


class Sending(L.Callback):
    """Sends the signal from a hook, the ``at``-th time that it runs, counted from 0."""

    def __init__(self, hook, at, number=signal.SIGUSR1):
        self.at, self.number, self.calls = at, number, 0
        setattr(self, hook, self.count)

    def count(self, *_, **__):
        if self.calls == self.at:
            signal.raise_signal(self.number)
        self.calls += 1


class Recorded(Net):
    """Notes what it trains and validates."""

    def __init__(self, **options):
        torch.manual_seed(3)
        super().__init__(learning_rate=0.1, save_top_k=0, **options)
        self.seen = []

    def compute_loss(self, batch, batch_idx):
        loss = super().compute_loss(batch, batch_idx)
        self.seen.append((self.trainer.state.stage.value, self.current_epoch, batch_idx, float(loss.detach())))
        return loss


def fit(root, net, *callbacks, environment=None, **options):
    """Returns the exit status of a process that trains so; ``None`` if it trains to its end."""
    torch.manual_seed(7)
    options = {"max_epochs": 2, "val_check_interval": 3, "num_sanity_val_steps": 0, **options}
    made = trainer(root, callbacks=list(callbacks), plugins=[environment or SLURMEnvironment()], **options)
    try:
        made.fit(net, loader(6, shuffle=True), loader(4, seed=9))
    except SystemExit as ended:
        return ended.code
    return None


def commands(tmp_path):
    path = tmp_path / "commands"
    return path.read_text().splitlines() if path.exists() else []


MOMENTS = {
    "in a batch": (("on_after_backward", 3), {}),
    "in a window": (("on_train_batch_end", 3), {"accumulate_grad_batches": 2, "val_check_interval": 1.0}),
    "in a validation": (("on_validation_batch_start", 5), {}),
    "in an epoch's end": (("on_train_epoch_end", 0), {}),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_signal_saves_once_and_requeues_and_the_job_goes_on_exactly(tmp_path, monkeypatch, moment):
    (hook, at), options = MOMENTS[moment]
    straight, stopped, resumed = (Recorded(dirpath=tmp_path / name) for name in ("straight", "run", "run"))
    fit(tmp_path / "straight", straight, **options)
    start_process(monkeypatch, restarts=0)
    assert fit(tmp_path / "root", stopped, Sending(hook, at), **options) == 128 + signal.SIGUSR1
    assert commands(tmp_path) == ["requeue 77"]
    (name,) = files(tmp_path / "run")
    assert read_info(tmp_path / "run" / name).kind == "exception"
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    start_process(monkeypatch, restarts=1)
    assert fit(tmp_path / "root", resumed, **options) is None
    assert (
        load(resumed.last_model_path)["checkpointable"]["run_id"]
        == load(tmp_path / "run" / name)["checkpointable"]["run_id"]
    )
    trained = [seen for net in (stopped, resumed) for seen in net.seen if seen[0] == "train"]
    assert trained == [seen for seen in straight.seen if seen[0] == "train"]
    assert [seen for seen in resumed.seen if seen[0] != "train"] == [
        seen for seen in straight.seen[len(straight.seen) - len(resumed.seen) :] if seen[0] != "train"
    ]
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in straight.state_dict().items())


def test_signal_in_the_sanity_check_requeues_and_the_job_starts_anew(tmp_path, monkeypatch):
    sending = Sending("on_validation_batch_start", 0)
    assert fit(tmp_path, Recorded(dirpath=tmp_path / "run"), sending, num_sanity_val_steps=2) == 128 + signal.SIGUSR1
    assert (commands(tmp_path), files(tmp_path)) == (["requeue 77"], [])
    start_process(monkeypatch, restarts=1)
    again = Recorded(dirpath=tmp_path / "run")
    assert fit(tmp_path, again) is None
    assert again.seen[0][:3] == ("train", 0, 0)


def test_twin_job_without_the_note_starts_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(requeued, "note", lambda *_: None)
    fit(tmp_path, Recorded(dirpath=tmp_path / "run"), Sending("on_after_backward", 3))
    start_process(monkeypatch, restarts=1)
    again = Recorded(dirpath=tmp_path / "run")
    fit(tmp_path, again)
    assert again.seen[0][:3] == ("train", 0, 0)


def test_job_of_a_machine_that_failed_goes_on_from_its_newest_file_among_those_of_other_runs(tmp_path, monkeypatch):
    fit(tmp_path, Recorded(dirpath=tmp_path / "runs", save_interval=2), limit_train_batches=5, max_epochs=1)
    start_process(monkeypatch, restarts=0)
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    fit(tmp_path, Recorded(dirpath=tmp_path / "runs", save_interval=2), max_epochs=2)
    start_process(monkeypatch, restarts=1)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    again = Recorded(dirpath=tmp_path / "runs", save_interval=2)
    fit(tmp_path, again, limit_train_batches=5, max_epochs=2)
    assert again.seen[0][:3] == ("train", 1, 0)


def test_each_fit_of_a_job_goes_on_with_its_own_run(tmp_path, monkeypatch):
    names = ("first", "second")
    fit(tmp_path, Recorded(dirpath=tmp_path / "first"))
    fit(tmp_path, Recorded(dirpath=tmp_path / "second"), Sending("on_after_backward", 3))
    start_process(monkeypatch, restarts=1)
    nets = [Recorded(dirpath=tmp_path / name) for name in names]
    assert [fit(tmp_path, net) for net in nets] == [None, None]
    assert [len([seen for seen in net.seen if seen[0] == "train"]) for net in nets] == [0, 8]


def test_without_a_dirpath_the_job_goes_on_in_the_directory_of_its_first_start(tmp_path, monkeypatch):
    stopped, again = Recorded(), Recorded()
    fit(tmp_path, stopped, Sending("on_after_backward", 3))
    start_process(monkeypatch, restarts=1)
    fit(tmp_path, again)
    assert os.path.dirname(again.last_model_path) == os.path.dirname(stopped.last_model_path)
    assert again.seen[0][:3] == ("train", 0, 4)


def test_task_of_an_array_is_requeued_by_its_own_number(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    fit(tmp_path, Recorded(dirpath=tmp_path / "run"), Sending("on_after_backward", 3))
    assert commands(tmp_path) == ["requeue 70_4"]


def test_another_signal_of_the_environment_requeues(tmp_path):
    environment = SLURMEnvironment(requeue_signal=signal.SIGUSR2)
    sending = Sending("on_after_backward", 3, signal.SIGUSR2)
    assert fit(tmp_path, Recorded(dirpath=tmp_path / "run"), sending, environment=environment) == 128 + signal.SIGUSR2
    assert commands(tmp_path) == ["requeue 77"]


def test_sigterm_after_the_signal_still_requeues_and_alone_does_not(tmp_path):
    both = [Sending("on_after_backward", 3), Sending("on_before_optimizer_step", 3, signal.SIGTERM)]
    fit(tmp_path, Recorded(dirpath=tmp_path / "both"), *both)
    assert commands(tmp_path) == ["requeue 77"]
    alone = fit(tmp_path, Recorded(dirpath=tmp_path / "alone"), Sending("on_after_backward", 3, signal.SIGTERM))
    assert (alone, commands(tmp_path)) == (128 + signal.SIGTERM, ["requeue 77"])


def test_job_is_requeued_where_the_save_fails(tmp_path, monkeypatch):
    class Failing(Recorded):
        def on_save_checkpoint(self, checkpoint):
            raise RuntimeError("no")

    with pytest.warns(CheckpointableWarning, match="was not saved"):
        fit(tmp_path, Failing(dirpath=tmp_path / "run"), Sending("on_after_backward", 3))
    assert commands(tmp_path) == ["requeue 77"]


def test_without_auto_requeue_the_signal_is_left_to_the_user(tmp_path):
    got = []
    before = signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
    try:
        net = Recorded(dirpath=tmp_path / "run")
        environment = SLURMEnvironment(auto_requeue=False)
        assert fit(tmp_path, net, Sending("on_after_backward", 3), environment=environment) is None
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (got, commands(tmp_path)) == ([1], [])


def test_with_save_on_exception_false_lightning_handles_the_signal(tmp_path):
    net = Recorded(dirpath=tmp_path / "run", save_on_exception=False)
    assert fit(tmp_path, net, Sending("on_after_backward", 3)) is None
    assert commands(tmp_path) == ["requeue 77"]
    assert [path.name for path in tmp_path.glob("hpc_ckpt*")] == ["hpc_ckpt_1.ckpt"]


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
