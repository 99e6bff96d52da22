"""A save waits for the moment at which the state of the training is whole."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from nets import MixedNet, Net, files, load, loader, trainer
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader

from checkpointable.catalog.info import read_info

INTERVALS = {"save_last_k": -1, "save_last": False, "save_top_k": 0}


def test_save_comes_after_the_users_hook_and_every_callback(tmp_path):
    class Late(Net):
        def __init__(self, **options):
            super().__init__(**options)
            self.register_buffer("marks", torch.zeros(2))

        def on_train_batch_end(self, outputs, batch, batch_idx):
            super().on_train_batch_end(outputs, batch, batch_idx)
            self.marks[0] = batch_idx + 1

    class Marking(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            pl_module.marks[1] += 1

    net = Late(save_interval=2, dirpath=tmp_path, **INTERVALS)
    trainer(tmp_path, callbacks=[Marking()]).fit(net, loader(4))
    assert load(tmp_path / "epoch_0_batch_2.ckpt")["state_dict"]["marks"].tolist() == [2, 2]


def test_save_inside_an_accumulation_window_waits_for_its_end(tmp_path):
    net = Net(save_interval=3, dirpath=tmp_path, **INTERVALS)
    trainer(tmp_path, accumulate_grad_batches=4).fit(net, loader(11))
    assert files(tmp_path) == ["epoch_0_batch_11.ckpt", "epoch_0_batch_4.ckpt", "epoch_0_batch_8.ckpt"]


def test_save_at_a_batch_that_triggers_validation_comes_after_it(tmp_path):
    class Counting(Net):
        def __init__(self, **options):
            super().__init__(**options)
            self.register_buffer("validations", torch.zeros(()))

        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            self.validations += 1

    net = Counting(save_interval=4, dirpath=tmp_path, **INTERVALS)
    trainer(tmp_path, val_check_interval=4, num_sanity_val_steps=0).fit(net, loader(8), loader(1))
    assert load(tmp_path / "epoch_0_batch_4.ckpt")["state_dict"]["validations"] == 1
    assert load(tmp_path / "epoch_0_batch_8.ckpt")["state_dict"]["validations"] == 2


def test_best_is_saved_after_early_stopping_and_plateau_schedulers(tmp_path):
    class Plateau(Net):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}

    net = Plateau(dirpath=tmp_path, patience=3)
    trainer(tmp_path).fit(net, loader(4), loader(2))
    saved = load(net.best_model_path)
    stopping = next(state for key, state in saved["callbacks"].items() if key.startswith("EarlyStopping"))
    assert stopping["best_score"] == net.best_model_score
    assert saved["lr_schedulers"][0]["best"] == pytest.approx(float(net.best_model_score))
    assert saved["lr_schedulers"][0]["last_epoch"] == 1


def test_best_inside_a_window_holds_the_validated_weights_and_the_windows_gradients(tmp_path):
    validated = {}

    class Noting(Net):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            validated.update({name: weight.clone() for name, weight in self.state_dict().items()})

    net = Noting(dirpath=tmp_path, save_top_k=-1, save_last=False)
    own = trainer(tmp_path, accumulate_grad_batches=4, val_check_interval=2, max_steps=1, num_sanity_val_steps=0)
    own.fit(net, loader(8), loader(2))
    saved = load(tmp_path / "best_val_loss_epoch_0.ckpt")
    assert saved["checkpointable"]["position"]["batch"] == 2
    assert saved["checkpointable"]["gradients"].keys() == {"layer.weight", "layer.bias"}
    assert all(gradient.abs().sum() > 0 for gradient in saved["checkpointable"]["gradients"].values())


def test_gradients_of_a_window_are_used_by_the_resumed_run(tmp_path):
    """With the rest of the window fed the same batches, the step is that of the run without a stop, bit for bit."""

    class Constant(Net):
        def compute_loss(self, batch, batch_idx):
            inputs, labels = batch
            return (batch_idx + 1) * F.cross_entropy(self.layer(inputs), labels)

    first = loader(1).dataset
    same = DataLoader(ConcatDataset([first] * 8), batch_size=4)
    options = {"accumulate_grad_batches": 4, "val_check_interval": 2, "max_steps": 1, "num_sanity_val_steps": 0}
    torch.manual_seed(0)
    straight = Constant(dirpath=tmp_path, save_top_k=-1)
    trainer(tmp_path, **options).fit(straight, same, loader(1))
    resumed = Constant(dirpath=tmp_path)
    trainer(tmp_path, **options).fit(resumed, same, loader(1), ckpt_path=tmp_path / "best_val_loss_epoch_0.ckpt")
    assert torch.equal(resumed.layer.weight, straight.layer.weight)


def test_window_of_manual_optimisation_is_waited_for(tmp_path):
    class Accumulating(MixedNet):
        def __init__(self, **options):
            super().__init__(**options)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            self.manual_backward(F.cross_entropy(self.layer(batch[0]), batch[1]))
            if batch_idx % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()

    net = Accumulating(save_interval=4, dirpath=tmp_path, **INTERVALS)
    trainer(tmp_path).fit(net, loader(12), loader(1))
    assert files(tmp_path) == ["epoch_0_batch_12.ckpt", "epoch_0_batch_6.ckpt", "epoch_0_batch_9.ckpt"]


def test_saving_changes_no_number_of_the_training(tmp_path):
    weights = []
    for options in ({}, {"save_interval": 1, "save_last_k": -1}, {"save_interval": 7, "save_top_k": 3}):
        L.seed_everything(3, verbose=False)
        net = MixedNet(dirpath=tmp_path / str(len(weights)), **options)
        trainer(tmp_path, max_epochs=2).fit(net, loader(10, shuffle=True), loader(2))
        weights.append(net.layer.weight)
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_metadata_says_what_is_in_the_file_without_a_tensor_read(tmp_path):
    net = Net(save_interval=2, dirpath=tmp_path, **INTERVALS)
    trainer(tmp_path).fit(net, loader(3))
    info = read_info(tmp_path / "epoch_0_batch_2.ckpt")
    assert (info.kind, info.epoch, info.batch, info.step) == ("interval", 0, 2, 2)
    assert info.metrics["train_loss_step"] > 0
    assert info.size == (tmp_path / "epoch_0_batch_2.ckpt").stat().st_size
    assert info.resumed_from is None
    assert not info.weights_only
