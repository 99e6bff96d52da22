"""The law when an exception in user code ends a training: the saved state is exact, or reported as approximate."""

from __future__ import annotations

import lightning as L
import pytest
import runs
from nets import Net, files, loader, trainer
from runs import Config, Digits, train

from checkpointable import latest
from checkpointable.catalog.info import read_info
from checkpointable.resume.loader_position import LoaderPosition

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
