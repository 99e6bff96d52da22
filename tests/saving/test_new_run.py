"""The first line of a new run says where it saves and when, and whether there was something to resume."""

from __future__ import annotations

from datetime import timedelta

import pytest
from nets import Net, loader, trainer

from checkpointable.policy.options import Options
from checkpointable.saving.new_run import when


def lines(caplog):
    return [record.message for record in caplog.records if "new run" in record.message]


def test_new_run_says_where_and_when_it_saves_once(tmp_path, caplog):
    net, training = Net(dirpath=tmp_path / "a", save_interval=100), trainer(tmp_path)
    with caplog.at_level("INFO"):
        training.fit(net, loader(2))
        training.fit_loop.max_epochs = 2
        training.fit(net, loader(2))
    assert lines(caplog) == [
        f"checkpointable: new run: no checkpoint in {tmp_path / 'a'}. Saves there: every 100 batches,"
        " the best val_loss, at the end of training, on exceptions and signals."
    ]


@pytest.mark.parametrize(("interval", "told"), [(2, False), (3, True)])
def test_interval_longer_than_an_epoch_is_told(tmp_path, caplog, interval, told):
    with caplog.at_level("INFO"):
        trainer(tmp_path, max_epochs=2).fit(Net(dirpath=tmp_path, save_interval=interval), loader(2))
    words = "save_interval=3 counts the batches of an epoch, and an epoch has 2, so it never saves"
    assert (words in caplog.text) == told


def test_new_run_beside_checkpoints_says_how_to_resume(tmp_path, caplog):
    trainer(tmp_path).fit(Net(dirpath=tmp_path), loader(2))
    caplog.clear()
    with caplog.at_level("INFO"):
        trainer(tmp_path).fit(Net(dirpath=tmp_path), loader(2))
    [line] = lines(caplog)
    cure = f"to resume, give resume='auto', or ckpt_path=checkpointable.latest({str(tmp_path)!r}) to fit"
    assert line.startswith(
        f"checkpointable: new run, although there are checkpoints in {tmp_path} ({cure}). Saves there"
    )


def test_resume_is_no_new_run(tmp_path, caplog):
    net = Net(dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(2))
    caplog.clear()
    with caplog.at_level("INFO"):
        trainer(tmp_path, max_epochs=2).fit(Net(), loader(2), ckpt_path=net.last_model_path)
    assert not lines(caplog)


def test_every_condition_has_its_words():
    everything = {
        "save_interval": 1, "every_n_train_steps": 3, "train_time_interval": timedelta(minutes=5), "every_n_epochs": 2,
        "keep_every_n_epochs": 1, "monitor": "acc", "mode": "max",
    }  # fmt: skip
    assert when(Options(**everything)) == [
        "every batch", "every 3 optimizer steps", "every 0:05:00", "every 2 epochs", "for ever every epoch",
        "the best acc", "at the end of training", "on exceptions and signals",
    ]  # fmt: skip
    assert when(Options())[0] == "as often as 1.00% of the training time allows"
    assert when(Options(save_last_k=0, save_top_k=0, save_last=False)) == ["on exceptions and signals"]
