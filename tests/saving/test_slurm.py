"""SLURM's signal before the end of a job: the state is saved once, and the job is requeued."""

from __future__ import annotations

import signal

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment
from nets import files, load, loader, trainer
from slurm_job import Recorded, Sending, commands, fit, start_job, start_process

from checkpointable import CheckpointableWarning
from checkpointable.catalog.info import read_info


@pytest.fixture(autouse=True)
def job(tmp_path, monkeypatch):
    start_job(tmp_path, monkeypatch)


class Silent(L.LightningModule):
    """Logs nothing, and is saved by nobody."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


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


def test_module_that_does_not_save_is_left_to_lightning_in_a_trainer_that_has_saved_another_one(tmp_path):
    made = trainer(tmp_path, plugins=[SLURMEnvironment()])
    made.fit(Recorded(dirpath=tmp_path / "run"), loader(6), loader(4))
    made.fit_loop.max_epochs = 2
    made.callbacks.append(Sending("on_after_backward", 3))
    made.fit(Silent(), loader(6))
    assert commands(tmp_path) == ["requeue 77"]
    assert list(tmp_path.glob("hpc_ckpt*"))
