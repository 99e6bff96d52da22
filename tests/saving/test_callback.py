"""What the rest of Lightning's world sees of us."""

from __future__ import annotations

import os

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO
from lightning.pytorch.tuner import Tuner
from nets import MixedNet, Net, PlainNet, Scripted, files, loader, trainer

from checkpointable import Checkpoints, latest

MID_EPOCH = "ignore:You're resuming from a checkpoint that ended before the epoch ended"


def kinds(own):
    return [type(callback).__name__ for callback in own.checkpoint_callbacks]


def test_implicit_model_checkpoint_is_replaced(tmp_path):
    own = trainer(tmp_path)
    own.fit(Net(dirpath=tmp_path), loader(2), loader(1))
    assert kinds(own) == ["CheckpointingCallback"]


def test_configured_model_checkpoint_stays_and_saves_as_it_did(tmp_path):
    theirs = ModelCheckpoint(dirpath=tmp_path / "theirs", monitor="val_loss", filename="{epoch}")
    own = trainer(tmp_path, callbacks=[theirs])
    own.fit(Net(dirpath=tmp_path / "ours"), loader(2), loader(1))
    assert kinds(own) == ["CheckpointingCallback", "ModelCheckpoint"]
    assert files(tmp_path / "theirs") == ["epoch=0.ckpt"]
    assert theirs.best_model_path == str(tmp_path / "theirs" / "epoch=0.ckpt")


def test_callback_shows_what_the_module_shows(tmp_path):
    net = Net(dirpath=tmp_path, save_top_k=2, save_interval=2)
    own = trainer(tmp_path, max_epochs=3)
    own.fit(net, loader(3), loader(1))
    callback = own.checkpoint_callback
    assert callback.best_model_path == net.best_model_path
    assert callback.best_model_score == net.best_model_score
    assert callback.best_k_models == net.best_k_models
    assert callback.last_model_path == net.last_model_path
    assert callback.dirpath == str(tmp_path)
    assert callback.kth_best_model_path == list(net.best_k_models)[-1]


def test_test_with_best_uses_the_best_weights(tmp_path):
    net = Net(dirpath=tmp_path, learning_rate=0.5)
    own = trainer(tmp_path, max_epochs=3)
    own.fit(net, loader(3, seed=2), loader(2))
    before = (net.best_val_loss, net.last_model_path)
    tested = own.test(net, loader(2), ckpt_path="best", verbose=False)[0]["test_loss"]
    assert tested == pytest.approx(float(net.best_model_score))
    assert (net.best_val_loss, net.last_model_path) == before


def test_test_without_a_path_works_where_nothing_was_judged(tmp_path):
    own = trainer(tmp_path)
    own.fit(Net(dirpath=tmp_path), loader(2))
    with pytest.warns(UserWarning, match="The best model of the previous `fit` call will be used"):
        assert own.test(dataloaders=loader(1), verbose=False)


@pytest.mark.filterwarnings(MID_EPOCH)
def test_fit_with_last_goes_on_from_the_newest_file(tmp_path):
    net = Net(dirpath=tmp_path, save_interval=2)
    own = trainer(tmp_path)
    own.fit(net, loader(3), loader(1))
    own.fit_loop.max_epochs = 2
    own.fit(net, loader(3), loader(1), ckpt_path="last")
    assert own.current_epoch == 2
    assert own.global_step == 6


class Unvalidated(PlainNet):
    validation_step = L.LightningModule.validation_step

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])


def test_trainer_gives_the_implicit_callback_back_to_a_plain_module(tmp_path):
    own = trainer(tmp_path)
    own.fit(Net(dirpath=tmp_path / "ours"), loader(2), loader(1))
    own.fit_loop.max_epochs = 2
    own.fit(Unvalidated(), loader(2))
    assert kinds(own) == ["ModelCheckpoint"]
    assert files(tmp_path / "checkpoints") == ["epoch=1-step=4.ckpt"]


def test_two_modules_in_one_trainer_each_save_their_own(tmp_path):
    own = trainer(tmp_path)
    first, second = Net(dirpath=tmp_path / "a"), Net(dirpath=tmp_path / "b")
    own.fit(first, loader(2), loader(1))
    own.fit_loop.max_epochs = 2
    own.fit(second, loader(2), loader(1))
    assert kinds(own) == ["CheckpointingCallback"]
    assert files(tmp_path / "b") == ["best_val_loss_epoch_1.ckpt"]
    assert files(tmp_path / "a") == ["best_val_loss_epoch_0.ckpt"]


def test_tuner_saves_nothing_and_finds_the_learning_rate_by_its_name(tmp_path, caplog):
    torch.manual_seed(0)
    net = Net(dirpath=tmp_path / "ours", save_interval=1, save_last_k=-1, strict_resume=True)
    own = trainer(tmp_path, max_epochs=1)
    found = Tuner(own).lr_find(net, loader(40), loader(1), num_training=30, early_stop_threshold=None)
    assert net.learning_rate == found.suggestion()
    assert files(tmp_path / "ours") == []
    with caplog.at_level("INFO"):
        own.fit(net, loader(3), loader(1))
    assert not any("resumes after" in record.message for record in caplog.records)
    assert len(files(tmp_path / "ours")) == 3
    assert own.global_step == 3


def test_batch_size_finder_saves_nothing(tmp_path):
    class Sized(Net):
        batch_size = 2

        def train_dataloader(self):
            return torch.utils.data.DataLoader(loader(50).dataset, batch_size=self.batch_size)

    net = Sized(dirpath=tmp_path / "ours", save_interval=1)
    Tuner(trainer(tmp_path)).scale_batch_size(net, max_trials=2, steps_per_trial=2)
    assert files(tmp_path / "ours") == []


class Unlogged(MixedNet):
    """Lightning's own ``self.log`` cannot be compiled with this torch."""

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        return None


@pytest.mark.parametrize("base", [Net, Unlogged])
def test_compiled_module_is_saved_and_taken_up(tmp_path, base):
    net = base(dirpath=tmp_path, save_interval=2)
    trainer(tmp_path).fit(torch.compile(net, backend="eager"), loader(3), loader(1))
    assert net.last_model_path
    again = base()
    own = trainer(tmp_path, max_epochs=2)
    own.fit(torch.compile(again, backend="eager"), loader(3), loader(1), ckpt_path=net.last_model_path)
    assert own.global_step == 6


def test_early_stopping_of_the_users_own_is_not_doubled(tmp_path):
    theirs = L.pytorch.callbacks.EarlyStopping("val_loss", patience=7)
    own = trainer(tmp_path, callbacks=[theirs])
    own.fit(Net(dirpath=tmp_path, patience=3), loader(2), loader(1))
    assert own.early_stopping_callbacks == [theirs]


def test_early_stopping_of_one_module_does_not_watch_the_next(tmp_path):
    own = trainer(tmp_path)
    own.fit(Net(dirpath=tmp_path / "a", patience=1), loader(2), loader(1))
    own.fit_loop.max_epochs = 2
    own.fit(Net(dirpath=tmp_path / "b"), loader(2), loader(1))
    assert own.early_stopping_callbacks == []


def test_implicit_model_checkpoint_is_replaced_after_a_validation_too(tmp_path):
    own, net = trainer(tmp_path), Net(dirpath=tmp_path / "ours")
    own.validate(net, loader(1), verbose=False)
    own.fit(net, loader(2), loader(1))
    assert kinds(own) == ["CheckpointingCallback"]


def test_learning_rate_finder_as_a_callback_is_no_resume(tmp_path, caplog):
    finder = L.pytorch.callbacks.LearningRateFinder(num_training_steps=20, early_stop_threshold=None)
    torch.manual_seed(0)
    net = Net(dirpath=tmp_path / "ours", save_interval=1, strict_resume=True)
    own = trainer(tmp_path, callbacks=[finder])
    with caplog.at_level("INFO"):
        own.fit(net, loader(30), loader(1))
    assert not any("resumes after" in record.message for record in caplog.records)
    assert own.global_step == 30


def test_finished_run_that_is_started_again_is_tested_with_its_best_and_its_last(tmp_path):
    net = Scripted([1.0, 5.0], dirpath=tmp_path)
    trainer(tmp_path, max_epochs=2).fit(net, loader(3), loader(1))
    own, again = trainer(tmp_path, max_epochs=2), Scripted([1.0, 5.0], dirpath=tmp_path)
    own.fit(again, loader(3), loader(1), ckpt_path=latest(tmp_path))
    assert own.checkpoint_callback.best_model_path == again.best_model_path == net.best_model_path
    assert own.checkpoint_callback.last_model_path == net.last_model_path
    for kind in ("best", "last"):
        assert own.test(again, loader(1), ckpt_path=kind, verbose=False)


def test_test_of_another_module_leaves_the_trainers_checkpoints_alone(tmp_path):
    net, own = Net(dirpath=tmp_path, save_interval=2), trainer(tmp_path)
    own.fit(net, loader(4), loader(1))
    own.test(Net(), loader(1), ckpt_path="best", verbose=False)
    assert own.checkpoint_callback.best_model_path == net.best_model_path
    own.test(net, loader(1), ckpt_path="last", verbose=False)
    run_id = net._checkpointing.progress.run_id
    own.fit_loop.max_epochs = 2
    own.fit(net, loader(4), loader(1))
    assert net._checkpointing.progress.run_id == run_id


def named(owner):
    return {owner.last_model_path, owner.best_model_path, *owner.best_k_models} - {""}


def test_paths_name_files_that_are_there_at_every_moment(tmp_path):
    class Looking(L.Callback):
        named: set = set()

        def look(self, trainer, pl_module, *_):
            for owner in (trainer.checkpoint_callback, pl_module):
                paths = named(owner)
                gone = {path for path in paths if not os.path.exists(path)}
                assert gone.isdisjoint(named(owner)), "a file goes after its name does, so it may be gone by now"
                self.named.update(paths)

    for hook in ("train_batch_start", "train_batch_end", "validation_batch_start", "validation_end", "train_epoch_end"):
        setattr(Looking, f"on_{hook}", Looking.look)
    net = Scripted([5.0, 4.0, 3.0, 2.0], dirpath=tmp_path, save_interval=1)
    trainer(tmp_path, max_epochs=4, callbacks=[Looking()], num_sanity_val_steps=0).fit(net, loader(4), loader(2))
    assert len(Looking.named) >= 4


def test_checkpoint_io_of_the_users_writes_the_files_and_what_they_lack_is_said(tmp_path, caplog):
    class Own(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            torch.save(checkpoint, path)

    for plugins, told in (([Own()], 1), ([], 0)):
        caplog.clear()
        with caplog.at_level("INFO"):
            own = trainer(tmp_path, plugins=plugins)
            own.fit(Net(dirpath=tmp_path / str(told), save_interval=2), loader(4), loader(1))
        assert sum("Own writes the files" in record.message for record in caplog.records) == told
        assert files(tmp_path / str(told))


def test_storage_options_reach_the_checkpoint_io_of_the_user(tmp_path):
    class Own(TorchCheckpointIO):
        got = None

        def save_checkpoint(self, checkpoint, path, storage_options=None):
            self.got = storage_options
            torch.save(checkpoint, path)

    own = Own()
    fitted = trainer(tmp_path, plugins=[own])
    fitted.fit(Net(dirpath=tmp_path / "ours"), loader(2))
    fitted.save_checkpoint(tmp_path / "mine.ckpt", storage_options={"acl": "private"})
    assert own.got == {"acl": "private"}
    again = Net()
    trainer(tmp_path, plugins=[own], max_epochs=2).fit(again, loader(2), ckpt_path=tmp_path / "mine.ckpt")
    assert again.trainer.global_step == 4


class Counting(_WrappingCheckpointIO):
    """A wrapper that a user wrote; nothing may be saved past it."""

    saves = 0

    def save_checkpoint(self, *args, **kwargs):
        self.saves += 1
        super().save_checkpoint(*args, **kwargs)


@pytest.mark.parametrize(
    "make",
    [
        AsyncCheckpointIO,
        Counting,
        lambda: AsyncCheckpointIO(TorchCheckpointIO()),
        lambda: AsyncCheckpointIO(Counting()),
    ],
    ids=["asynchronous", "a user's", "around the default", "around a user's"],
)
def test_checkpoint_io_that_is_wrapped_is_ours_and_its_files_are_found(tmp_path, caplog, make):
    plugin, net = make(), Net(dirpath=tmp_path / "saved", save_interval=2)
    with caplog.at_level("INFO"):
        own = trainer(tmp_path, plugins=[plugin])
        own.fit(net, loader(4), loader(1))
    assert not any("writes the files" in record.message for record in caplog.records)
    assert latest(tmp_path / "saved") == net.last_model_path
    assert set(Checkpoints(tmp_path / "saved").verify().values()) == {None}
    wrapper = next((io for io in (plugin, plugin.checkpoint_io) if isinstance(io, Counting)), None)
    assert wrapper is None or wrapper.saves >= len(files(tmp_path / "saved"))
    again = Net(dirpath=tmp_path / "saved")
    trainer(tmp_path, max_epochs=2, plugins=[make()]).fit(again, loader(4), loader(1), ckpt_path=net.last_model_path)
    assert again.trainer.global_step == 8
