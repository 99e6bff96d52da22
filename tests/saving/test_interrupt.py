"""Ctrl-C: the first finishes the batch, saves and stops; the second interrupts at once."""

from __future__ import annotations

import os
import signal

import lightning as L
import pytest
import torch
from attacks.programs import writing_is_over
from nets import Net, files, load, loader, trainer

from checkpointable.catalog.info import read_info
from checkpointable.storage.writer import Writer


@pytest.fixture
def keyboard():
    """Ctrl-C as a terminal has it; a shell starts what is in the background without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class PressedInside(L.Callback):
    """Sends Ctrl-C in the middle of a batch, so many times."""

    def __init__(self, at, times=1):
        self.at, self.times = at, times

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.fit_loop.batch_idx == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def test_first_ctrl_c_finishes_the_batch_saves_and_stops(tmp_path, keyboard):
    net = Net(dirpath=tmp_path)
    with pytest.raises(SystemExit):
        trainer(tmp_path, callbacks=[PressedInside(at=3)]).fit(net, loader(9))
    assert files(tmp_path) == ["epoch_0_batch_4.ckpt"]
    assert read_info(net.last_model_path).kind == "exception"
    assert signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN)


class PressedAfter(L.Callback):
    """Sends Ctrl-C at the end of a batch."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == self.at:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("at", [3, 4, 5], ids=["opens", "is open", "is closed"])
def test_first_ctrl_c_while_a_window_goes_on_exactly_from_there(tmp_path, keyboard, at):
    def made(where):
        torch.manual_seed(5)
        return Net(dirpath=tmp_path / where, learning_rate=0.1)

    straight = made("straight")
    trainer(tmp_path, accumulate_grad_batches=3).fit(straight, loader(10))
    stopped = made("stopped")
    with pytest.raises(SystemExit):
        trainer(tmp_path, accumulate_grad_batches=3, callbacks=[PressedAfter(at)]).fit(stopped, loader(10))
    assert files(tmp_path / "stopped") == [f"epoch_0_batch_{at + 1}.ckpt"]
    assert bool(load(stopped.last_model_path)["checkpointable"]["gradients"]) == (at < 5)
    assert read_info(stopped.last_model_path).exactness == "exact"
    resumed = Net(dirpath=tmp_path / "resumed", learning_rate=0.1, strict_resume=True)
    trainer(tmp_path, accumulate_grad_batches=3).fit(resumed, loader(10), ckpt_path=stopped.last_model_path)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in straight.state_dict().items())


def test_second_ctrl_c_interrupts_at_once_and_saves_nothing_half_done(tmp_path, keyboard):
    net = Net(dirpath=tmp_path, save_interval=2)
    with pytest.raises(SystemExit):
        trainer(tmp_path, callbacks=[PressedInside(at=4, times=2)]).fit(net, loader(9))
    writing_is_over()  # what had begun before is finished all the same
    assert files(tmp_path) == ["epoch_0_batch_4.ckpt"]


def test_second_ctrl_c_while_the_first_is_obeyed_begins_no_other_save(tmp_path, keyboard):
    class Impatient(Net):
        def on_save_checkpoint(self, checkpoint):
            super().on_save_checkpoint(checkpoint)
            saves.append(checkpoint["checkpointable"]["position"]["batch"])
            if len(saves) == 2:
                signal.raise_signal(signal.SIGINT)

    saves = []
    net = Impatient(dirpath=tmp_path, save_interval=2)
    with pytest.raises(SystemExit):
        trainer(tmp_path, callbacks=[PressedInside(at=2)]).fit(net, loader(9))
    assert saves == [2, 3]
    assert files(tmp_path) == ["epoch_0_batch_2.ckpt"]


def test_ctrl_c_handler_of_somebody_else_is_left_alone(tmp_path):
    pressed = []
    signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    try:
        trainer(tmp_path, callbacks=[PressedInside(at=1)]).fit(Net(dirpath=tmp_path), loader(3))
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert pressed == [1]


def test_ctrl_c_while_a_file_is_waited_for_leaves_that_save_in_progress(tmp_path, monkeypatch, keyboard):
    """Its memory is still being read, and must not be freed: the save is collected when the training has stopped."""
    taken, take = [], Writer.take

    def interrupted(writer):
        taken.append(net._checkpointing.saver.in_progress is None)
        if len(taken) == 1:
            raise KeyboardInterrupt
        return take(writer)

    monkeypatch.setattr(Writer, "take", interrupted)
    net = Net(dirpath=tmp_path, save_interval=2, save_on_exception=False)
    with pytest.raises(SystemExit):
        trainer(tmp_path).fit(net, loader(6))
    assert taken == [False, False]
    assert net._checkpointing.saver.in_progress is None
