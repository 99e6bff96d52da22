"""What else goes on in a process while a save is under way."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import stat
import threading

import pytest
from attacks.programs import At, Settled, told
from invariants import assert_whole, leftovers
from lightning.pytorch.callbacks import ModelCheckpoint
from nets import Net, PlainNet, files, links, loader, trainer

from checkpointable import latest
from checkpointable.catalog.info import read_info


@pytest.fixture
def held(monkeypatch):
    """A disk that syncs no file until it is told to; user code that saves meanwhile is not held."""
    sync, go, main = os.fsync, threading.Event(), threading.main_thread()

    def wait(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and threading.current_thread() is not main:
            assert go.wait(300)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", wait)
    yield go
    go.set()


def test_loader_workers_forked_while_a_save_is_under_way_work_and_end(forge, place):
    ended = forge.run("attacks.programs:fork_workers", where=str(place), workers=2)
    assert ended.code == 0, ended.errors
    assert any(ended.result["busy"])
    assert "Traceback" not in ended.errors
    assert "epoch_0_batch_6.ckpt" in files(place)
    assert_whole(place)


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"]
)
def test_copy_of_a_module_whose_save_is_under_way_trains_on_its_own(tmp_path, held, way):
    copies = []
    net = Net(dirpath=tmp_path / "first", save_interval=2)

    def take():
        copies.append(way(net))
        held.set()

    trainer(tmp_path, callbacks=[At({3: take})]).fit(net, loader(5))
    [other] = copies
    trainer(tmp_path).fit(other, loader(3))
    assert net.last_model_path.endswith("epoch_0_batch_5.ckpt")
    assert other.last_model_path.endswith("epoch_0_batch_3.ckpt")
    assert files(tmp_path / "first") == ["epoch_0_batch_3.ckpt", "epoch_0_batch_5.ckpt"]
    assert_whole(tmp_path / "first")


def test_file_that_the_user_saves_meanwhile_is_there_at_once(tmp_path, held):
    seen = []
    fit = trainer(tmp_path, callbacks=[At({3: lambda: (save(), held.set())})])

    def save():
        fit.save_checkpoint(tmp_path / "mine" / "my.ckpt")
        seen.append((read_info(str(tmp_path / "mine" / "my.ckpt")).at.batch, files(tmp_path / "ours")))

    net = Net(dirpath=tmp_path / "ours", save_interval=2, save_last_k=-1)
    fit.fit(net, loader(5))
    assert seen == [(2, [])], "ours is still under way"
    assert files(tmp_path / "ours")[-1] == "epoch_0_batch_5.ckpt"
    assert_whole(tmp_path / "mine")


def test_file_that_the_user_saves_under_the_name_of_the_one_under_way_stays_his(tmp_path, held):
    name = tmp_path / "epoch_0_batch_2.ckpt"
    fit = trainer(tmp_path, callbacks=[At({3: lambda: (fit.save_checkpoint(name), held.set())})])
    net = Net(dirpath=tmp_path, save_interval=2, save_last_k=-1)
    fit.fit(net, loader(3))
    assert read_info(str(name)).kind == "manual"
    assert files(tmp_path) == ["epoch_0_batch_2-v1.ckpt", "epoch_0_batch_2.ckpt", "epoch_0_batch_3.ckpt"]
    assert_whole(tmp_path)


def test_training_begun_in_the_same_directory_meanwhile_does_not_sweep_the_file_away(tmp_path, held):
    def train_another():
        trainer(tmp_path).fit(Net(dirpath=tmp_path, save_last=False), loader(1))
        held.set()

    net = Net(dirpath=tmp_path, save_interval=2, save_last_k=-1)
    with told() as messages:
        trainer(tmp_path, callbacks=[At({3: train_another})]).fit(net, loader(4))
    assert messages == []
    assert files(tmp_path) == ["epoch_0_batch_2.ckpt", "epoch_0_batch_4.ckpt"]


def test_model_checkpoint_of_the_user_saves_beside_ours(tmp_path):
    theirs = ModelCheckpoint(dirpath=tmp_path / "theirs", every_n_train_steps=1, save_top_k=-1)
    net = Net(dirpath=tmp_path / "ours", save_interval=1, save_last_k=-1)
    trainer(tmp_path, callbacks=[theirs, Settled()]).fit(net, loader(6))
    assert len(files(tmp_path / "theirs")) == len(files(tmp_path / "ours")) == 6
    assert_whole(tmp_path / "theirs")
    assert_whole(tmp_path / "ours")


def test_trainers_one_after_the_other_keep_their_files_apart(tmp_path):
    first, second = (Net(dirpath=tmp_path / name, save_interval=2) for name in "ab")
    one, two = trainer(tmp_path), trainer(tmp_path)
    one.fit(first, loader(3))
    two.fit(second, loader(5))
    trainer(tmp_path).fit(PlainNet(), loader(1), loader(1))
    trainer(tmp_path).fit(first, loader(4))
    assert files(tmp_path / "a") == ["epoch_0_batch_3.ckpt", "epoch_0_batch_4.ckpt"]
    assert files(tmp_path / "b") == ["epoch_0_batch_5.ckpt"]
    assert latest(tmp_path / "a") == first.last_model_path


class Broken:
    """A disk that refuses to sync the given files, by number."""

    def __init__(self, monkeypatch, *numbers):
        self.sync, self.numbers, self.count = os.fsync, numbers, 0
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            self.count += 1
            if self.count in self.numbers:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.sync(descriptor)


def test_failure_in_the_background_is_one_warning_and_attributes_stay_with_what_is_durable(tmp_path, monkeypatch):
    Broken(monkeypatch, 2)
    net, seen = Net(dirpath=tmp_path, save_interval=2), []

    def look():
        seen.append((os.path.basename(net.last_model_path), files(tmp_path), links(tmp_path)))

    with told() as messages:
        trainer(tmp_path, callbacks=[Settled(), At({6: look, 8: look})]).fit(net, loader(9))
    [message] = messages
    assert "the state after epoch 0, batch 4" in message
    assert f"was not saved: {tmp_path}: [Errno 5] Input/output error. Training continues" in message
    assert seen == [
        ("epoch_0_batch_2.ckpt", ["epoch_0_batch_2.ckpt"], {"last.ckpt": "epoch_0_batch_2.ckpt"}),
        ("epoch_0_batch_6.ckpt", ["epoch_0_batch_6.ckpt"], {"last.ckpt": "epoch_0_batch_6.ckpt"}),
    ]
    assert leftovers(tmp_path) == set()


def test_best_save_that_fails_in_the_background_does_not_move_the_best(tmp_path, monkeypatch):
    Broken(monkeypatch, 2)
    net, seen = Net(dirpath=tmp_path, save_last=False), []

    class Falling(At):
        def on_train_epoch_start(self, *args):
            seen.append((os.path.basename(net.best_model_path), files(tmp_path)))

    with told() as messages:
        trainer(tmp_path, max_epochs=3, callbacks=[Falling({}), Settled()], num_sanity_val_steps=0).fit(
            net, loader(4), loader(4)
        )
    assert len(messages) == 1
    assert net.best_model_path.endswith("best_val_loss_epoch_2.ckpt")
    assert files(tmp_path) == ["best_val_loss_epoch_2.ckpt"]
    assert seen[2][1] == ["best_val_loss_epoch_0.ckpt"]
