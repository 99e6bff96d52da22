"""Trainings whose checkpoints lie on a remote file system."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from nets import Net, loader, trainer
from remote.conftest import names

from checkpointable import CheckpointableWarning, Checkpoints, SaveError, best, latest
from checkpointable.storage.remote import RemoteStore


class At(L.Callback):
    """Does something at the start of a batch."""

    def __init__(self, **actions):
        self.actions = {int(name.removeprefix("batch_")): action for name, action in actions.items()}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.actions.get(batch_idx, lambda: None)()


@pytest.fixture(autouse=True)
def _quick_to_give_up(monkeypatch):
    monkeypatch.setitem(RemoteStore.__init__.__kwdefaults__, "pause_seconds", 0.02)


def test_training_keeps_the_newest_and_the_best_there_and_nothing_else(place, tmp_path):
    net = Net(dirpath=place, save_interval=2, async_save=False)
    trainer(tmp_path, max_epochs=2).fit(net, loader(5), loader(2))
    assert names(place) == ["best_val_loss_epoch_1.ckpt", "epoch_1_batch_4.ckpt"]
    assert latest(place) == net.last_model_path == f"{place}/best_val_loss_epoch_1.ckpt"
    assert best(place) == net.best_model_path
    assert [info.kind for info in Checkpoints(place)] == ["interval", "best"]


def test_training_resumed_from_there_equals_the_run_that_was_not_stopped(place, tmp_path):
    L.seed_everything(1)
    straight = Net(dirpath=place, save_interval=3, save_last_k=-1, save_top_k=0)
    trainer(tmp_path, max_epochs=2).fit(straight, loader(5, shuffle=True))
    L.seed_everything(2)
    resumed = Net()
    trainer(tmp_path, max_epochs=2).fit(resumed, loader(5, shuffle=True), ckpt_path=f"{place}/epoch_0_batch_3.ckpt")
    assert torch.equal(resumed.layer.weight, straight.layer.weight)
    assert resumed.last_model_path.startswith(f"{place}/"), "a run goes on saving where it was resumed from"


def test_best_of_a_remote_run_is_tested_by_name(place, tmp_path):
    t = trainer(tmp_path)
    t.fit(Net(dirpath=place), loader(3), loader(2))
    assert "test_loss" in t.test(Net(), loader(2), ckpt_path=best(place), verbose=False)[0]


def test_outage_during_training_is_a_warning_and_the_end_is_saved(s3, wire, tmp_path):
    net = Net(dirpath=s3, save_interval=5, save_top_k=0, async_save=False)
    outage = At(batch_1=wire.cut, batch_8=wire.mend)
    with pytest.warns(
        CheckpointableWarning, match=r"epoch 0, batch 5.* not saved: cannot list s3://.*Training continues"
    ):
        trainer(tmp_path, callbacks=[outage]).fit(net, loader(20))
    assert latest(s3) == f"{s3}/epoch_0_batch_20.ckpt"
    assert Checkpoints(s3).verify() == {net.last_model_path: None}


def test_outage_that_lasts_to_the_end_raises_and_says_what_is_there(s3, wire, tmp_path):
    net = Net(dirpath=s3, save_interval=5, save_top_k=0, async_save=False)
    with pytest.raises(SaveError, match=r"batch 8.* was not saved: .*Older checkpoints are untouched: .*batch_5\.ckpt"):
        trainer(tmp_path, callbacks=[At(batch_6=wire.cut)]).fit(net, loader(8))
    wire.mend()
    assert latest(s3) == f"{s3}/epoch_0_batch_5.ckpt"


def test_directory_that_is_no_bucket_fails_before_the_first_batch(s3, tmp_path):
    begun = []
    with pytest.raises(SaveError, match="cannot save checkpoints in s3://there-is-no-such-bucket"):
        trainer(tmp_path, callbacks=[At(batch_0=lambda: begun.append(True))]).fit(
            Net(dirpath="s3://there-is-no-such-bucket/a"), loader(2)
        )
    assert begun == []
