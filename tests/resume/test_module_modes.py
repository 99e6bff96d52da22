"""Frozen parameters and evaluation modes after a resume, and the line that is logged about them."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, ModelCheckpoint
from nets import Net, loader, trainer

INSIDE = {"save_interval": 2, "save_last_k": -1, "every_n_epochs": 1, "save_top_k": 0}


class Parts(Net):
    """Has a backbone and a head. Parts of them may be frozen from the start."""

    def __init__(self, frozen=(), **options):
        super().__init__(**options)
        self.backbone = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.1))
        self.layer = torch.nn.Linear(4, 2)
        self.seen = []
        for name in frozen:
            self.get_parameter(name).requires_grad = False

    def compute_loss(self, batch, batch_idx):
        inputs, labels = batch
        if self.training:
            self.seen.append((self.frozen(), self.evaluating()))
        return torch.nn.functional.cross_entropy(self.layer(self.backbone(inputs)), labels)

    def frozen(self):
        return [name for name, weight in self.named_parameters() if not weight.requires_grad]

    def evaluating(self):
        return [name for name, part in self.named_modules() if not part.training]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Freezing(Parts):
    """Freezes the backbone from the second epoch on."""

    def on_train_epoch_start(self):
        if self.current_epoch:
            self.backbone.eval().requires_grad_(False)


class Headed(Parts):
    """Optimizes only the parameters that are not frozen at the start."""

    def configure_optimizers(self):
        return torch.optim.SGD([weight for weight in self.parameters() if weight.requires_grad], lr=0.1)


def fit(net, where, ckpt_path=None, callbacks=(), **options):
    limits = {"max_epochs": 3, "num_sanity_val_steps": 0, "callbacks": list(callbacks), **options}
    trainer(where, **limits).fit(net, loader(4), loader(1), ckpt_path=ckpt_path)
    return net


def logged(caplog):
    return [
        record.message
        for record in caplog.records
        if "as in the checkpoint and unlike in this script" in record.message
    ]


def test_weights_frozen_on_purpose_are_as_in_the_checkpoint_and_this_is_logged(tmp_path, caplog):
    fit(Parts(frozen=["layer.bias"], dirpath=tmp_path / "a", **INSIDE), tmp_path)
    with caplog.at_level("INFO"):
        net = fit(Parts(dirpath=tmp_path / "b"), tmp_path, tmp_path / "a/epoch_1_batch_2.ckpt")
    assert logged(caplog) == ["checkpointable: frozen, as in the checkpoint and unlike in this script: 'layer.bias'"]
    assert {tuple(frozen) for frozen, _ in net.seen} == {("layer.bias",)}


def test_weights_frozen_only_now_are_as_in_the_checkpoint_and_this_is_logged(tmp_path, caplog):
    fit(Parts(dirpath=tmp_path / "a", **INSIDE), tmp_path)
    frozen = ["backbone.0.weight", "backbone.0.bias", "backbone.1.weight"]
    with caplog.at_level("INFO"):
        net = fit(Parts(frozen=frozen, dirpath=tmp_path / "b"), tmp_path, tmp_path / "a/epoch_1_batch_2.ckpt")
    words = "checkpointable: not frozen, as in the checkpoint and unlike in this script: 'backbone.0.bias' and 2 more"
    assert logged(caplog) == [words]
    assert {tuple(frozen) for frozen, _ in net.seen} == {()}


def test_modules_put_into_evaluation_mode_by_hand_train_as_in_the_checkpoint_and_this_is_logged(tmp_path, caplog):
    fit(Parts(dirpath=tmp_path / "a", **INSIDE), tmp_path)
    net = Parts(dirpath=tmp_path / "b")
    net.backbone[1].eval()
    with caplog.at_level("INFO"), pytest.warns(UserWarning, match="in eval mode"):
        fit(net, tmp_path, tmp_path / "a/epoch_1_batch_2.ckpt")
    assert logged(caplog) == [
        "checkpointable: not evaluating, as in the checkpoint and unlike in this script: 'backbone.1'"
    ]
    assert {tuple(evaluating) for _, evaluating in net.seen} == {()}


FILES = ["epoch_0_batch_2", "epoch_0_batch_4", "epoch_1_batch_2", "epoch_1_batch_4", "epoch_2_batch_2"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("options", [{}, {"val_check_interval": 2}, {"accumulate_grad_batches": 2}], ids=str)
def test_nothing_is_logged_when_nothing_differs(tmp_path, caplog, name, options):
    fit(Parts(dirpath=tmp_path / "a", **INSIDE), tmp_path, **options)
    with caplog.at_level("INFO"):
        fit(Parts(dirpath=tmp_path / "b"), tmp_path, tmp_path / f"a/{name}.ckpt", **options)
    assert logged(caplog) == []


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_logged_when_the_same_weights_are_frozen_again(tmp_path, caplog, name):
    fit(Parts(frozen=["layer.bias"], dirpath=tmp_path / "a", **INSIDE), tmp_path)
    with caplog.at_level("INFO"):
        fit(Parts(frozen=["layer.bias"], dirpath=tmp_path / "b"), tmp_path, tmp_path / f"a/{name}.ckpt")
    assert logged(caplog) == []


def test_modes_set_at_an_epochs_start_are_restored_inside_it(tmp_path):
    fit(Freezing(dirpath=tmp_path / "a", **INSIDE), tmp_path)
    net = fit(Freezing(dirpath=tmp_path / "b"), tmp_path, tmp_path / "a/epoch_1_batch_2.ckpt")
    assert len(net.seen) == 6
    assert {len(frozen) for frozen, _ in net.seen} == {4}
    assert {tuple(evaluating) for _, evaluating in net.seen} == {
        ("backbone", "backbone.0", "backbone.1", "backbone.2"),
    }


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used")
@pytest.mark.parametrize("each", [{"save_on_train_epoch_end": False}, {"every_n_train_steps": 2}], ids=str)
def test_file_of_another_callback_resumes_in_training_mode(tmp_path, caplog, each):
    theirs = ModelCheckpoint(dirpath=tmp_path / "theirs", save_top_k=-1, filename="{step}", **each)
    fit(Parts(dirpath=tmp_path / "a"), tmp_path, callbacks=[theirs])
    with caplog.at_level("INFO"):
        net = fit(Parts(dirpath=tmp_path / "b"), tmp_path, tmp_path / "theirs/step=4.ckpt")
    assert len(net.seen) == 8
    assert {tuple(evaluating) for _, evaluating in net.seen} == {()}
    assert logged(caplog) == []


def test_best_file_after_a_validation_resumes_in_training_mode(tmp_path, caplog):
    before = Parts(dirpath=tmp_path / "a", save_top_k=-1, save_interval=None)
    best = fit(before, tmp_path, val_check_interval=2).best_k_models
    assert len(best) >= 4
    with caplog.at_level("INFO"):
        modes = [fit(Parts(dirpath=tmp_path / "b"), tmp_path, path, val_check_interval=2).seen for path in best]
    assert {tuple(evaluating) for seen in modes for _, evaluating in seen} == {()}
    assert logged(caplog) == []


def finetuning():
    return [BackboneFinetuning(unfreeze_backbone_at_epoch=1)]


@pytest.mark.parametrize("name", ["epoch_0_batch_4", "epoch_1_batch_2", "epoch_2_batch_2"])
@pytest.mark.parametrize(("kind", "callbacks"), [(Freezing, list), (Headed, finetuning)], ids=["hook", "callback"])
@pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist")
def test_nothing_is_logged_when_the_same_script_sets_modes_at_an_epochs_start(tmp_path, caplog, name, kind, callbacks):
    fit(kind(dirpath=tmp_path / "a", **INSIDE), tmp_path, callbacks=callbacks())
    with caplog.at_level("INFO"):
        fit(kind(dirpath=tmp_path / "b"), tmp_path, tmp_path / f"a/{name}.ckpt", callbacks())
    assert logged(caplog) == []


def test_finished_run_logs_nothing_about_modes(tmp_path, caplog):
    net = fit(Parts(dirpath=tmp_path / "a", **INSIDE), tmp_path)
    with caplog.at_level("INFO"):
        fit(Parts(dirpath=tmp_path / "b"), tmp_path, net.last_model_path)
    assert logged(caplog) == []
