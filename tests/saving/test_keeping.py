"""Which files stay, in which directory, under which names, and in which order they come and go."""

from __future__ import annotations

import os
import shutil
import threading

import lightning as L
import pytest
import torch
from nets import Net, Scripted, files, links, load, loader, trainer

from checkpointable import CheckpointableWarning, latest
from checkpointable.catalog.info import read_info
from checkpointable.storage import commit
from checkpointable.storage.local import LocalStore


@pytest.fixture
def events(monkeypatch):
    """The names that appear, move and go, in the order in which they do."""
    seen = []

    def recording(name, place):
        original = getattr(commit, name)

        def call(*args, **kwargs):
            result = original(*args, **kwargs)
            seen.append((name, os.path.basename(args[place])))
            return result

        monkeypatch.setattr(commit, name, call)

    recording("_publish", 1)
    recording("point", 0)
    recording("remove", 0)
    return seen


def test_newest_and_best_are_kept_as_a_union(tmp_path):
    net = Scripted([1.0, 5.0, 5.0], dirpath=tmp_path, save_interval=2, save_last_k=2, save_top_k=1)
    trainer(tmp_path, max_epochs=3).fit(net, loader(5), loader(1))
    assert files(tmp_path) == ["best_score_epoch_0.ckpt", "epoch_2_batch_4.ckpt", "epoch_2_batch_5.ckpt"]
    assert links(tmp_path) == {"best.ckpt": "best_score_epoch_0.ckpt", "last.ckpt": "epoch_2_batch_5.ckpt"}


@pytest.mark.parametrize(("keep", "count"), [(0, 0), (1, 1), (3, 3), (-1, 6)])
def test_save_last_k_keeps_so_many(tmp_path, keep, count):
    net = Net(dirpath=tmp_path, save_interval=1, save_last_k=keep, save_top_k=0, save_last=False)
    trainer(tmp_path).fit(net, loader(6))
    assert len(files(tmp_path)) == count


def test_new_file_is_durable_before_links_move_and_links_before_the_old_one_goes(tmp_path, events):
    net = Net(dirpath=tmp_path, save_interval=2, save_top_k=0, save_last=True)
    trainer(tmp_path).fit(net, loader(4))
    assert events == [
        ("_publish", "epoch_0_batch_2.ckpt"),
        ("point", "last.ckpt"),
        ("_publish", "epoch_0_batch_4.ckpt"),
        ("point", "last.ckpt"),
        ("remove", "epoch_0_batch_2.ckpt"),
    ]


def test_attributes_move_only_when_the_file_is_durable(tmp_path, monkeypatch):
    net = Net(dirpath=tmp_path, save_interval=2, save_top_k=0)
    seen = []
    original = commit._publish

    def publish(temporary, path, *, overwrite):
        seen.append(net.last_model_path)
        original(temporary, path, overwrite=overwrite)

    monkeypatch.setattr(commit, "_publish", publish)
    trainer(tmp_path).fit(net, loader(4))
    assert [os.path.basename(path) for path in seen] == ["", "epoch_0_batch_2.ckpt"]


def test_default_directory_is_where_model_checkpoint_would_save(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    net = Net()
    trainer(tmp_path, logger=CSVLogger(tmp_path, name="digits")).fit(net, loader(2))
    assert net.last_model_path == str(tmp_path / "digits" / "version_0" / "checkpoints" / "epoch_0_batch_2.ckpt")
    bare = Net()
    trainer(tmp_path).fit(bare, loader(2))
    assert bare.last_model_path == str(tmp_path / "checkpoints" / "epoch_0_batch_2.ckpt")


def test_names_with_a_slash_stay_inside_the_directory(tmp_path):
    class Slashed(Net):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            self.log("val/loss", 0.25)

    net = Slashed(monitor="val/loss", filename="{epoch:02d}_{val/loss:.1f}", dirpath=tmp_path, every_n_epochs=1)
    trainer(tmp_path, max_epochs=2).fit(net, loader(2), loader(1))
    assert files(tmp_path) == ["01_0.2.ckpt", "best_val_loss_epoch_0.ckpt"]
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*.ckpt"))


def test_template_may_make_subdirectories_and_links_stay_relative(tmp_path):
    net = Net(filename="{epoch}/{batch}", dirpath=tmp_path, save_top_k=0)
    trainer(tmp_path).fit(net, loader(2))
    assert links(tmp_path) == {"last.ckpt": os.path.join("0", "2.ckpt")}


def test_auto_insert_metric_name_writes_names_before_values(tmp_path):
    net = Net(filename="{epoch:02d}-{step}", auto_insert_metric_name=True, dirpath=tmp_path, save_top_k=0)
    trainer(tmp_path).fit(net, loader(3))
    assert files(tmp_path) == ["epoch=00-step=3.ckpt"]


def test_template_that_is_always_the_same_is_replaced_in_place(tmp_path):
    net = Net(filename="model", save_interval=1, dirpath=tmp_path, save_top_k=0)
    trainer(tmp_path).fit(net, loader(3))
    assert files(tmp_path) == ["model.ckpt"]
    assert read_info(tmp_path / "model.ckpt").batch == 3


def test_template_that_is_always_the_same_gets_versions_when_several_are_kept(tmp_path):
    net = Net(filename="model", save_interval=1, save_last_k=2, dirpath=tmp_path, save_top_k=0)
    trainer(tmp_path).fit(net, loader(4))
    assert sorted(read_info(tmp_path / name).batch for name in files(tmp_path)) == [3, 4]


def test_directory_of_another_run_is_shared_and_its_files_are_untouched(tmp_path):
    trainer(tmp_path).fit(Net(dirpath=tmp_path, save_interval=2), loader(4), loader(1))
    theirs = {path.name: (path.read_bytes(), path.is_symlink()) for path in tmp_path.glob("*.ckpt")}
    net = Net(dirpath=tmp_path, save_interval=2)
    trainer(tmp_path, max_epochs=2).fit(net, loader(4), loader(1))
    assert {name: ((tmp_path / name).read_bytes(), (tmp_path / name).is_symlink()) for name in theirs} == theirs
    assert {"last-v1.ckpt", "best-v1.ckpt"} <= links(tmp_path).keys()
    assert (tmp_path / "last-v1.ckpt").resolve() == type(tmp_path)(net.last_model_path)


def test_foreign_file_of_our_name_is_never_overwritten(tmp_path):
    (tmp_path / "epoch_0_batch_2.ckpt").write_text("thesis")
    net = Net(dirpath=tmp_path, save_top_k=0)
    trainer(tmp_path).fit(net, loader(2))
    assert (tmp_path / "epoch_0_batch_2.ckpt").read_text() == "thesis"
    assert net.last_model_path == str(tmp_path / "epoch_0_batch_2-v1.ckpt")


def test_links_survive_moving_the_directory(tmp_path):
    trainer(tmp_path).fit(Net(dirpath=tmp_path / "a"), loader(2), loader(1))
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert load(tmp_path / "b" / "last.ckpt")["checkpointable"]["position"]["batch"] == 2


def test_weights_only_leaves_out_optimizers_schedulers_and_loops(tmp_path):
    net = Net(dirpath=tmp_path, save_weights_only=True)
    trainer(tmp_path).fit(net, loader(2), loader(1))
    saved = load(net.last_model_path)
    assert not {"optimizer_states", "lr_schedulers", "loops", "callbacks"} & saved.keys()
    assert read_info(net.last_model_path).weights_only
    assert torch.equal(Net.load_from_checkpoint(net.last_model_path).layer.weight, net.layer.weight)


def test_newest_file_that_somebody_else_deletes_is_written_again_at_the_end(tmp_path):
    class Deleting(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            os.unlink(pl_module.last_model_path)

    net = Net(dirpath=tmp_path, save_interval=4, save_top_k=0, async_save=False)
    with pytest.warns(CheckpointableWarning, match="checkpoints of this run are gone"):
        trainer(tmp_path, callbacks=[Deleting()], limit_train_batches=8, max_steps=4).fit(net, loader(8))
    assert files(tmp_path) == ["epoch_0_batch_4.ckpt"]
    assert latest(tmp_path) == net.last_model_path == str(tmp_path / "epoch_0_batch_4.ckpt")


def test_file_written_by_the_user_is_never_deleted(tmp_path):
    class Own(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 0:
                self.trainer.save_checkpoint(tmp_path / "mine.ckpt")

    trainer(tmp_path, max_epochs=2).fit(Own(dirpath=tmp_path, save_interval=1), loader(4))
    assert "mine.ckpt" in files(tmp_path)
    assert read_info(tmp_path / "mine.ckpt").kind == "manual"


def test_directory_that_vanishes_is_made_again_and_what_is_lost_is_said(tmp_path):
    where = tmp_path / "run"

    class Vandal(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 2:
                shutil.rmtree(where)

    net = Vandal(dirpath=where, save_interval=2, async_save=False)
    with pytest.warns(CheckpointableWarning, match=r"checkpoints of this run are gone: .*epoch_0_batch_2\.ckpt"):
        trainer(tmp_path).fit(net, loader(4))
    assert files(where) == ["epoch_0_batch_4.ckpt"]


def test_loggers_are_told_of_files_that_are_there(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    class Uploading(CSVLogger):
        uploaded: list = []

        def after_save_checkpoint(self, checkpoint_callback):
            path = checkpoint_callback.last_model_path
            self.uploaded.append((os.path.basename(path), os.path.exists(path)))
            assert checkpoint_callback.best_k_models.keys() <= {str(p) for p in tmp_path.glob("*.ckpt")}

    net = Net(dirpath=tmp_path, save_interval=2)
    trainer(tmp_path, logger=Uploading(tmp_path)).fit(net, loader(4), loader(1))
    assert Uploading.uploaded == [("epoch_0_batch_2.ckpt", True), ("best_val_loss_epoch_0.ckpt", True)]


def test_directory_behind_a_link_is_one_place(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    net = Net(dirpath=tmp_path / "link", save_interval=2)
    trainer(tmp_path).fit(net, loader(5), loader(1))
    again = Net(dirpath=tmp_path / "link", save_interval=2)
    trainer(tmp_path, max_epochs=2).fit(again, loader(5), loader(1), ckpt_path=tmp_path / "link" / "last.ckpt")
    assert os.path.exists(net.last_model_path), "the file resumed from"
    assert links(tmp_path / "real")["last.ckpt"] == os.path.basename(again.last_model_path)


def test_file_that_the_user_writes_over_one_of_ours_is_his(tmp_path):
    class Own(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 4:
                self.trainer.save_checkpoint(tmp_path / "last.ckpt")
                self.trainer.save_checkpoint(tmp_path / "epoch_0_batch_4.ckpt")

    trainer(tmp_path).fit(Own(dirpath=tmp_path, save_interval=2, save_top_k=0), loader(8))
    assert read_info(tmp_path / "last.ckpt").kind == "manual"
    assert read_info(tmp_path / "epoch_0_batch_4.ckpt").kind == "manual"
    assert links(tmp_path) == {"last-v1.ckpt": "epoch_0_batch_8.ckpt"}


def test_file_that_the_user_writes_while_a_link_takes_its_name_is_his(tmp_path, monkeypatch):
    """The writer's thread has seen that ``last.ckpt`` is free when user code saves a file of that name."""
    link, begun, saved = LocalStore.link, threading.Event(), threading.Event()

    def link_late(store, name, target):
        if not begun.is_set():
            begun.set()
            saved.wait(1.0)  # without a lock the user's file is there by now; with one it comes later
        link(store, name, target)

    class Own(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 2:
                assert begun.wait(60)
                self.trainer.save_checkpoint(tmp_path / "last.ckpt")
                saved.set()

    monkeypatch.setattr(LocalStore, "link", link_late)
    trainer(tmp_path).fit(Own(dirpath=tmp_path, save_interval=2, save_top_k=0), loader(4))
    assert read_info(tmp_path / "last.ckpt").kind == "manual"
    assert links(tmp_path) == {"last-v1.ckpt": "epoch_0_batch_4.ckpt"}
