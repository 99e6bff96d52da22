"""A save that would not be done before the process has to be gone is not begun, and that is said."""

from __future__ import annotations

import signal
import time

import lightning as L
import pytest
from nets import Net, files, loader, trainer

from checkpointable import CheckpointableWarning
from checkpointable.saving import deadline
from checkpointable.storage.writer import Writer

AN_HOUR = 3600


@pytest.fixture(autouse=True)
def slow(monkeypatch):
    """Every save seems to take an hour."""
    timed = Writer._timed

    def slower(writer, work):
        result = timed(writer, work)
        writer.last_seconds = AN_HOUR
        return result

    monkeypatch.setattr(Writer, "_timed", slower)
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)


class Sending(L.Callback):
    """Sends a signal in this batch of the training."""

    def __init__(self, at, number=signal.SIGTERM):
        self.at, self.number = at, number

    def on_after_backward(self, trainer, pl_module):
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.at:
            signal.raise_signal(self.number)


def stopped(where, *, at=4, **options):
    net = Net(dirpath=where, save_interval=2, save_top_k=0, **options)
    with pytest.raises(SystemExit):
        trainer(where, callbacks=[Sending(at)]).fit(net, loader(9))
    return files(where)


def test_save_that_takes_longer_than_is_left_after_the_signal_is_not_begun(tmp_path):
    said = r"epoch 0, batch 5.*such a save takes 3600\.0 s here, and \d+\.\d s are left until the process has to end"
    with pytest.warns(CheckpointableWarning, match=said):
        assert stopped(tmp_path, deadline_seconds=60) == ["epoch_0_batch_4.ckpt"]


@pytest.mark.parametrize("seconds", [None, 2 * AN_HOUR])
def test_save_with_time_enough_is_made(tmp_path, seconds):
    assert stopped(tmp_path, deadline_seconds=seconds) == ["epoch_0_batch_5.ckpt"]


def test_save_whose_time_is_not_known_is_tried(tmp_path):
    assert stopped(tmp_path, at=0, deadline_seconds=60) == ["epoch_0_batch_1.ckpt"]


def test_saves_before_the_signal_do_not_look_at_deadline_seconds(tmp_path):
    net = Net(dirpath=tmp_path, save_interval=2, save_last_k=-1, deadline_seconds=60)
    trainer(tmp_path).fit(net, loader(6))
    assert [name for name in files(tmp_path) if "batch" in name] == [f"epoch_0_batch_{at}.ckpt" for at in (2, 4, 6)]


def test_second_fit_has_forgotten_the_signal_of_the_first(tmp_path):
    stopped(tmp_path / "first", deadline_seconds=2 * AN_HOUR)
    net = Net(dirpath=tmp_path / "second", save_interval=2, deadline_seconds=60)
    trainer(tmp_path).fit(net, loader(6))
    assert "epoch_0_batch_6.ckpt" in files(tmp_path / "second")


def test_no_save_is_begun_that_the_end_of_the_job_would_cut_off_but_the_last_one_is_tried(tmp_path, monkeypatch):
    """The first is tried, too, and its time is known from then on."""
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + AN_HOUR // 2))
    net = Net(dirpath=tmp_path, save_interval=2, save_top_k=0, save_last_k=-1)
    refused = r"batch 4.*takes 3600\.0 s here, and 1[78]\d\d\.\d s are left until the job's end \(SLURM_JOB_END_TIME\)"
    with pytest.warns(CheckpointableWarning, match=refused):
        trainer(tmp_path).fit(net, loader(5))
    assert files(tmp_path) == ["epoch_0_batch_2.ckpt", "epoch_0_batch_5.ckpt"]


@pytest.mark.parametrize("end", ["", "unknown", "9999999999", "1"])
def test_end_of_the_job_that_is_late_unknown_or_past_refuses_nothing(tmp_path, monkeypatch, end):
    monkeypatch.setenv("SLURM_JOB_END_TIME", end)
    trainer(tmp_path).fit(Net(dirpath=tmp_path, save_interval=2, save_top_k=0), loader(6))
    assert files(tmp_path) == ["epoch_0_batch_6.ckpt"]


def test_twin_without_the_check_begins_it(tmp_path, monkeypatch):
    monkeypatch.setattr(deadline, "check", lambda *_: None)
    assert stopped(tmp_path, deadline_seconds=60) == ["epoch_0_batch_5.ckpt"]
