"""The law when an exception in user code ends a training: the saved state is exact, or reported as approximate."""

from __future__ import annotations

import contextlib

import lightning as L
import pytest
import runs
import torch
from nets import Net, files, load, loader, trainer
from runs import Config, Digits, train

from checkpointable import latest
from checkpointable.catalog.info import read_info
from checkpointable.lightning_internals import trainer as internals
from checkpointable.resume.loader_position import LoaderPosition
from checkpointable.saving.progress import Progress

pytestmark = pytest.mark.filterwarnings("ignore")

ONLY_EXCEPTIONS = {"save_interval": None, "save_top_k": 0}


def before_batch(events, step):
    """The number of events before the batch that follows this step."""
    return next(at for at, event in enumerate(events) if event[0] == "train_batch_start" and event[2] == step)


def stopped_by_a_sample(patch, config, where, at):
    """The uninterrupted training, and the file of one in which a sample of the fourth batch cannot be read."""
    straight = train(config, where / "straight", seed=1, **ONLY_EXCEPTIONS)
    unreadable = straight.events[before_batch(straight.events, 3) + 1][1][at]
    read = Digits.__getitem__

    def failing(digits, index):
        drawn = read(digits, index)
        if index == unreadable and len(digits) == runs.SAMPLES:
            raise OSError("cannot read this sample")
        return drawn

    with patch.context() as broken:
        broken.setattr(Digits, "__getitem__", failing)
        with pytest.raises(OSError, match="cannot read this sample"):
            train(config, where / "stopped", seed=1, **ONLY_EXCEPTIONS)
    return straight, latest(where / "stopped")


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("persistent", [False, True])
def test_training_ended_by_a_sample_that_a_worker_cannot_read_resumes_exactly(tmp_path, monkeypatch, persistent, at):
    config = Config(workers=2, persistent=persistent, validation="every")
    straight, path = stopped_by_a_sample(monkeypatch, config, tmp_path, at)
    assert (read_info(path).kind, read_info(path).batch, read_info(path).exactness) == ("exception", 3, "exact")
    resumed = train(config, tmp_path / "resumed", seed=99, ckpt_path=path, strict_resume=True, **ONLY_EXCEPTIONS)
    assert resumed.differs_from(straight, before_batch(straight.events, 3)) == ""


def test_training_ended_by_a_sample_that_this_process_cannot_read_is_reported_as_approximate(tmp_path, monkeypatch):
    straight, path = stopped_by_a_sample(monkeypatch, Config(), tmp_path, at=2)
    assert read_info(path).exactness.startswith("randomness: approximate (an exception was raised")
    resumed = train(Config(), tmp_path / "resumed", seed=99, ckpt_path=path, **ONLY_EXCEPTIONS)
    assert resumed.differs_from(straight, before_batch(straight.events, 3)) != "", (
        "the failed fetch had drawn random numbers"
    )


def test_training_ended_by_a_sample_that_this_process_cannot_read_is_reported_as_exact_without_the_check(
    tmp_path, monkeypatch
):
    """The twin."""
    monkeypatch.setattr(LoaderPosition, "may_have_drawn", False)
    assert read_info(stopped_by_a_sample(monkeypatch, Config(), tmp_path, at=2)[1]).exactness == "exact"


class Raising(L.Callback):
    """Raises at the start of the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise KeyError("stop")


def test_exception_at_the_start_of_an_epoch_keeps_the_earlier_files_and_saves_nothing(tmp_path):
    net = Net(dirpath=tmp_path, save_interval=2, save_top_k=0)
    with pytest.raises(KeyError):
        trainer(tmp_path, max_epochs=3, callbacks=[Raising()]).fit(net, loader(5, shuffle=True))
    assert files(tmp_path) == ["epoch_0_batch_4.ckpt"]
    assert read_info(net.last_model_path).exactness == "exact"


class Closing(L.Callback):
    """Raises when a batch starts, before our own callback hears of the batch."""

    def __init__(self, at):
        self.at, self.trainer = at, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.trainer = trainer
        if batch_idx == self.at:
            raise KeyError("stop")

    def is_in_window(self):
        return self.trainer is not None and internals.inside_window(self.trainer)


def gradients_and_weights(where, stopping):
    """The gradients in the file after an exception, and the final weights of the resumed and the uninterrupted run."""
    ends, options = [], {"save_interval": None, "monitor": None}
    for name in ("straight", "stopped"):
        torch.manual_seed(0)
        net = Net(dirpath=where / name, **options)
        fit = trainer(where, accumulate_grad_batches=4, callbacks=[stopping] if name == "stopped" else [])
        with pytest.raises(KeyError) if name == "stopped" else contextlib.nullcontext():
            fit.fit(net, loader(8))
        ends.append(net.layer.weight)
    path = latest(where / "stopped")
    resumed = Net(dirpath=where / "resumed", **options)
    trainer(where, accumulate_grad_batches=4).fit(resumed, loader(8), ckpt_path=path)
    return load(path)["checkpointable"]["gradients"], resumed.layer.weight, ends[0]


@pytest.mark.parametrize(("at", "gradients"), [(3, 2), (4, 0), (5, 2), (7, 2)])
def test_exception_before_a_batch_keeps_the_gradients_of_an_open_window_also_if_the_batch_closes_it(
    tmp_path, at, gradients
):
    found, resumed, straight = gradients_and_weights(tmp_path, Closing(at))
    assert len(found) == gradients
    assert torch.equal(resumed, straight)


def test_exception_at_the_batch_that_closes_a_window_loses_its_gradients_if_the_window_is_judged_then(
    tmp_path, monkeypatch
):
    """The twin: Lightning's counter of batches is that of the new batch already."""
    stopping = Closing(3)
    judged = property(lambda progress: stopping.is_in_window(), lambda progress, value: None)
    monkeypatch.setattr(Progress, "in_window", judged, raising=False)
    found, resumed, straight = gradients_and_weights(tmp_path, stopping)
    assert len(found) == 0
    assert not torch.equal(resumed, straight)
