"""``Checkpointing``: the callback, for modules that one does not write, in both of Lightning's trees."""

from __future__ import annotations

import copy
import math
import pickle
from importlib import import_module

import lightning as L
import pytest
import torch
from nets import QUIET, Net, load, loader

from checkpointable import (
    CheckpointableWarning,
    Checkpointing,
    Checkpoints,
    LightningVersionError,
    PolicyError,
    ResumeError,
    UnknownArgumentError,
    best,
    latest,
)

TREES = ["lightning.pytorch", "pytorch_lightning"]


@pytest.fixture(params=TREES)
def pl(request):
    return import_module(request.param)


def module_of(pl):
    class Somebodys(pl.LightningModule):
        def __init__(self, width=2):
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(2, width)

        def training_step(self, batch, batch_idx):
            return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    return Somebodys


def trainer_of(pl, where, *callbacks, **options):
    return pl.Trainer(**{"max_epochs": 1, "default_root_dir": where, **QUIET, "callbacks": [*callbacks], **options})


def names(fitted):
    return [type(callback).__name__ for callback in fitted.checkpoint_callbacks]


def test_callback_saves_somebodys_module_and_resumes_exactly(pl, tmp_path, caplog):
    caplog.set_level("INFO")
    ours = Checkpointing(dirpath=tmp_path, save_interval=2)
    fitted = trainer_of(pl, tmp_path, ours)
    fitted.fit(module_of(pl)(), loader(3), loader(1))
    assert names(fitted) == ["CheckpointingCallback"], "the one that Lightning adds by itself is gone"
    assert isinstance(fitted.checkpoint_callback, pl.callbacks.ModelCheckpoint)
    assert ours.best_model_path == best(tmp_path) == fitted.checkpoint_callback.best_model_path
    assert ours.best_val_loss == fitted.checkpoint_callback.best_val_loss < math.inf
    again = trainer_of(pl, tmp_path, Checkpointing(dirpath=tmp_path, strict_resume=True), max_epochs=2)
    again.fit(module_of(pl)(), loader(3), loader(1), ckpt_path=latest(tmp_path))
    assert again.global_step == 6
    assert "exact" in next(it.message for it in caplog.records if "resumes after epoch 0" in it.message)
    assert (
        Checkpoints(tmp_path)[-1].resumed_from == best(tmp_path, "val_loss") or Checkpoints(tmp_path)[-1].resumed_from
    )


def test_file_of_the_callback_loads_into_the_plain_module(pl, tmp_path):
    trainer_of(pl, tmp_path, Checkpointing(dirpath=tmp_path)).fit(module_of(pl)(width=3), loader(2), loader(1))
    assert module_of(pl).load_from_checkpoint(latest(tmp_path)).layer.out_features == 3


@pytest.mark.parametrize("weights_only", [False, True])
def test_files_that_user_code_saves_have_the_state_and_metadata(pl, tmp_path, weights_only):
    fitted = trainer_of(pl, tmp_path, Checkpointing(dirpath=tmp_path))
    fitted.fit(module_of(pl)(), loader(2), loader(1))
    fitted.save_checkpoint(tmp_path / "by_hand.ckpt", weights_only=weights_only)
    assert "checkpointable" in load(tmp_path / "by_hand.ckpt")
    info = next(info for info in Checkpoints(tmp_path) if info.path.endswith("by_hand.ckpt"))
    assert (info.kind, info.weights_only, info.batch) == ("manual", weights_only, 2)


def test_weights_only_files_cannot_be_resumed_from(pl, tmp_path):
    trainer_of(pl, tmp_path, Checkpointing(dirpath=tmp_path, save_weights_only=True)).fit(
        module_of(pl)(), loader(2), loader(1)
    )
    path = str(next(tmp_path.glob("epoch*.ckpt")))
    with pytest.raises(ResumeError, match="holds weights only"):
        trainer_of(pl, tmp_path, Checkpointing(dirpath=tmp_path)).fit(
            module_of(pl)(), loader(2), loader(1), ckpt_path=path
        )


def test_module_of_ours_saves_itself_and_the_callback_says_that_it_does_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    fitted = trainer_of(L.pytorch, tmp_path, Checkpointing(dirpath=tmp_path / "callback"))
    fitted.fit(Net(dirpath=tmp_path / "module"), loader(2))
    assert latest(tmp_path / "module") is not None
    assert not (tmp_path / "callback").exists()
    assert [it.message for it in caplog.records if "Checkpointing(...) does nothing" in it.message] == [
        "checkpointable: Net saves itself, by the arguments of its own constructor, so the callback Checkpointing(...)"
        " does nothing."
    ]


def test_two_callbacks_are_refused(pl, tmp_path):
    fitted = trainer_of(pl, tmp_path, Checkpointing(dirpath=tmp_path), Checkpointing(dirpath=tmp_path / "b"))
    with pytest.raises(PolicyError, match="more than one Checkpointing callback"):
        fitted.fit(module_of(pl)(), loader(2), loader(1))


def test_model_checkpoint_of_the_user_saves_as_it_did(pl, tmp_path):
    theirs = pl.callbacks.ModelCheckpoint(dirpath=tmp_path / "theirs", filename="{epoch}")
    fitted = trainer_of(pl, tmp_path, Checkpointing(dirpath=tmp_path / "ours"), theirs)
    fitted.fit(module_of(pl)(), loader(2), loader(1))
    assert names(fitted) == ["CheckpointingCallback", "ModelCheckpoint"]
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["epoch=0.ckpt"]


def test_early_stopping_of_the_callback_is_set_up(pl, tmp_path):
    fitted = trainer_of(pl, tmp_path, Checkpointing(dirpath=tmp_path, patience=2))
    fitted.fit(module_of(pl)(), loader(2), loader(1))
    assert [stopping.patience for stopping in fitted.early_stopping_callbacks] == [2]


def test_validation_with_the_callback_saves_nothing_and_reads_a_file(pl, tmp_path):
    trainer_of(pl, tmp_path, Checkpointing(dirpath=tmp_path)).fit(module_of(pl)(), loader(2), loader(1))
    before = sorted(tmp_path.glob("*.ckpt"))
    other = Checkpointing(dirpath=tmp_path)
    trainer_of(pl, tmp_path, other).validate(module_of(pl)(), loader(1), ckpt_path=latest(tmp_path), verbose=False)
    assert sorted(tmp_path.glob("*.ckpt")) == before
    assert other.best_val_loss == math.inf


def test_dry_run_saves_nothing(pl, tmp_path):
    fitted = trainer_of(pl, tmp_path, Checkpointing(dirpath=tmp_path / "a"), fast_dev_run=True)
    fitted.fit(module_of(pl)(), loader(2), loader(1))
    assert not (tmp_path / "a").exists()


def test_trainer_without_checkpointing_warns_that_nothing_is_saved(pl, tmp_path):
    fitted = trainer_of(pl, tmp_path, Checkpointing(dirpath=tmp_path / "a"), enable_checkpointing=False)
    with pytest.warns(CheckpointableWarning, match=r"nothing is saved\. The callback .* enable_checkpointing=True"):
        fitted.fit(module_of(pl)(), loader(2), loader(1))
    assert not (tmp_path / "a").exists()


def test_second_fit_of_a_trainer_goes_on(pl, tmp_path):
    fitted = trainer_of(pl, tmp_path, Checkpointing(dirpath=tmp_path, save_interval=None, monitor=None))
    net = module_of(pl)()
    fitted.fit(net, loader(2), loader(1))
    fitted.fit_loop.max_epochs = 2
    fitted.fit(net, loader(2), loader(1))
    assert [(info.epoch, info.batches) for info in Checkpoints(tmp_path)] == [(1, 4)]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_trainer_with_the_callback_is_copied(tmp_path, copied):
    fitted = trainer_of(L.pytorch, tmp_path, Checkpointing(dirpath=tmp_path))
    fitted.fit(Net(dirpath=tmp_path), loader(2))
    assert [type(callback).__name__ for callback in copied(fitted).callbacks][:1] == ["Checkpointing"]


def test_callback_of_the_other_tree_is_refused_by_name(tmp_path):
    import pytorch_lightning

    stopping = L.pytorch.callbacks.EarlyStopping("val_loss")
    fitted = trainer_of(pytorch_lightning, tmp_path, Checkpointing(dirpath=tmp_path), stopping)
    expected = r"of pytorch_lightning, and EarlyStopping in it of lightning\.pytorch.*Import it from pytorch_lightning"
    with pytest.raises(LightningVersionError, match=expected):
        fitted.fit(module_of(pytorch_lightning)(), loader(2), loader(1))


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"verbose": True}, "lists what was saved"),
        ({"save_intervall": 3}, "Did you mean 'save_interval'"),
        ({"learning_rate": 0.1}, "it belongs to CheckpointingModule"),
    ],
)
def test_unknown_argument_is_refused_with_the_cure(arguments, cure):
    with pytest.raises(UnknownArgumentError, match=cure):
        Checkpointing(**arguments)
    with pytest.raises(UnknownArgumentError, match="Pass arguments by name"):
        Checkpointing("runs")


def test_assigning_to_the_attached_callback_changes_the_run_or_is_refused(pl, tmp_path):
    ours = Checkpointing(dirpath=tmp_path, save_top_k=1)

    class Change(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            attached = trainer.checkpoint_callback
            attached.save_top_k = -1
            assert attached.save_top_k == ours._checkpointing.options.save_top_k == -1
            for name, value in (("best_model_path", "x"), ("dirpath", "elsewhere")):
                with pytest.raises(AttributeError, match=f"{name} cannot be set"):
                    setattr(attached, name, value)

    trainer_of(pl, tmp_path, ours, Change()).fit(module_of(pl)(), loader(2), loader(1))
