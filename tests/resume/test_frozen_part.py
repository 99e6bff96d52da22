"""``save_trainable_only=True``: what is frozen stays out of the files, and the module brings it by itself."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning, EMAWeightAveraging
from nets import Net, PlainNet, load, loader, trainer

from checkpointable import CheckpointableWarning, Checkpointing, Checkpoints, ResumeError, latest
from checkpointable.resume import frozen_part

FROZEN = {"backbone.0.weight", "backbone.0.bias"}
STATISTICS = {f"backbone.1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
TRAINED = {"head.weight", "head.bias", "head.running_mean", "head.running_var", "head.num_batches_tracked"}
TRAINED |= {"layer.weight", "layer.bias"}


class Tuned(Net):
    """A frozen backbone that is the same in every script, and a part with statistics that is trained."""

    def __init__(self, *, seed=0, evaluating=True, **options):
        super().__init__(**{"save_trainable_only": True, "save_interval": 2, **options})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.backbone = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).requires_grad_(False)
        self.head = torch.nn.BatchNorm1d(2)
        self.evaluating = evaluating

    def on_train_epoch_start(self):
        self.backbone.train(not self.evaluating)

    def compute_loss(self, batch, batch_idx):
        inputs, labels = batch
        return torch.nn.functional.cross_entropy(self.layer(self.head(self.backbone(inputs))), labels)


def fit(net, where, epochs=1, *, ckpt_path=None, callbacks=(), batches=3):
    fitting = trainer(where, max_epochs=epochs, callbacks=list(callbacks))
    fitting.fit(net, loader(batches, shuffle=True), loader(1), ckpt_path=ckpt_path)
    return net


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_frozen_part_is_left_out_and_the_file_has_its_checksum(tmp_path):
    fit(Tuned(dirpath=tmp_path), tmp_path)
    saved, info = load(latest(tmp_path)), Checkpoints(tmp_path).latest()
    assert saved["state_dict"].keys() == TRAINED
    assert saved["checkpointable"]["left_out"].keys() == FROZEN | STATISTICS
    assert len(info.frozen_checksum) == 64
    assert "trainable only" in repr(Checkpoints(tmp_path))
    assert len(saved["optimizer_states"][0]["state"]) == 4, "of the four parameters that are trained"


def test_same_frozen_part_has_the_same_checksum_in_every_run(tmp_path):
    for run in ("a", "b"):
        torch.manual_seed(len(run) + ord(run))
        fit(Tuned(dirpath=tmp_path / run), tmp_path)
    fit(Tuned(dirpath=tmp_path / "c", seed=1), tmp_path)
    found = [Checkpoints(tmp_path / run).latest().frozen_checksum for run in "abc"]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("evaluating", [True, False])
def test_resumed_run_is_the_run_without_a_stop(tmp_path, evaluating, caplog):
    torch.manual_seed(1)
    whole = fit(Tuned(dirpath=tmp_path / "a", evaluating=evaluating, save_last_k=-1), tmp_path, 2)
    torch.manual_seed(2)
    resumed = Tuned(dirpath=tmp_path / "b", evaluating=evaluating, strict_resume=True)
    with caplog.at_level("INFO"):
        fit(resumed, tmp_path, 2, ckpt_path=tmp_path / "a/epoch_0_batch_2.ckpt")
    assert "epoch_0_batch_2.ckpt: exact" in caplog.text
    assert_equal(weights(whole), weights(resumed))
    fit(again := Tuned(dirpath=tmp_path / "c", evaluating=evaluating), tmp_path, 2, ckpt_path=latest(tmp_path / "b"))
    assert_equal(weights(whole), weights(again))


def test_statistics_of_a_frozen_part_in_training_mode_are_in_the_file(tmp_path):
    fit(Tuned(dirpath=tmp_path, evaluating=False), tmp_path)
    changed = {f"backbone.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert load(latest(tmp_path))["state_dict"].keys() == TRAINED | changed


def test_statistics_whose_change_went_unseen_would_be_lost(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr(frozen_part, "seen", lambda tensor: ())
    fit(Tuned(dirpath=tmp_path, evaluating=False), tmp_path)
    assert load(latest(tmp_path))["state_dict"].keys() == TRAINED


@pytest.mark.parametrize("change", ["copy", "data", "replace"])
def test_teacher_that_follows_without_gradients_is_in_the_file(tmp_path, change):
    class Teacher(Tuned):
        @torch.no_grad()
        def on_train_batch_end(self, *args):
            weight = self.backbone[0].weight
            if change == "copy":
                weight.copy_(0.9 * weight + 0.1 * self.layer.weight)
            elif change == "data":
                weight.data.mul_(0.9).add_(0.1 * self.layer.weight.data)
            else:
                weight.data = 0.9 * weight.data + 0.1 * self.layer.weight.data

    torch.manual_seed(1)
    whole = fit(Teacher(dirpath=tmp_path / "a", save_last_k=-1), tmp_path, 2)
    path = tmp_path / "a/epoch_0_batch_2.ckpt"
    assert load(path)["state_dict"].keys() == TRAINED | {"backbone.0.weight"}
    fit(resumed := Teacher(dirpath=tmp_path / "b", strict_resume=True), tmp_path, 2, ckpt_path=path)
    assert_equal(weights(whole), weights(resumed))
    assert "backbone.0.weight" in load(latest(tmp_path / "b"))["state_dict"]


def test_part_that_is_unfrozen_later_is_in_later_files(tmp_path):
    class Thaw(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.backbone, train_bn=False)

        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.backbone[0], optimizer)

    class Optimized(Tuned):
        def configure_optimizers(self):
            return torch.optim.SGD([it for it in self.parameters() if it.requires_grad], lr=0.1)

    torch.manual_seed(1)
    options = {"save_last_k": -1, "save_top_k": 0}
    whole = fit(Optimized(dirpath=tmp_path / "a", **options), tmp_path, 3, callbacks=[Thaw()])
    files = {name: load(tmp_path / f"a/{name}.ckpt") for name in ("epoch_0_batch_2", "epoch_1_batch_2")}
    assert files["epoch_0_batch_2"]["state_dict"].keys() == TRAINED
    assert files["epoch_1_batch_2"]["state_dict"].keys() == TRAINED | FROZEN
    for name in files:
        resumed = Optimized(dirpath=tmp_path / name, **options)
        fit(resumed, tmp_path, 3, callbacks=[Thaw()], ckpt_path=tmp_path / f"a/{name}.ckpt")
        assert_equal(weights(whole), weights(resumed))


def test_part_that_was_trained_and_is_frozen_again_is_in_the_file(tmp_path):
    class Freezing(Tuned):
        def on_train_epoch_start(self):
            super().on_train_epoch_start()
            self.layer.requires_grad_(self.current_epoch == 0)

    fit(Freezing(dirpath=tmp_path / "a"), tmp_path, 2)
    path = latest(tmp_path / "a")
    assert load(path)["state_dict"].keys() == TRAINED
    fit(Freezing(dirpath=tmp_path / "b"), tmp_path, 3, ckpt_path=path)
    assert load(latest(tmp_path / "b"))["state_dict"].keys() == TRAINED, "also when the fit begins with it frozen"


def test_module_with_another_frozen_part_is_warned_and_not_called_exact(tmp_path, caplog):
    fit(Tuned(dirpath=tmp_path / "a"), tmp_path)
    other = Tuned(dirpath=tmp_path / "b", seed=1)
    before = weights(other)["backbone.0.weight"]
    with pytest.warns(CheckpointableWarning, match=r"another frozen part .* backbone\.0\.weight.* Give the module the"):
        with caplog.at_level("INFO"):
            fit(other, tmp_path, 2, ckpt_path=latest(tmp_path / "a"))
    assert "frozen part: approximate (backbone.0.bias, backbone.0.weight: not in the file" in caplog.text
    assert torch.equal(other.backbone[0].weight, before)


def test_module_with_another_frozen_part_is_refused_when_strict(tmp_path):
    fit(Tuned(dirpath=tmp_path / "a"), tmp_path)
    with pytest.raises(
        ResumeError, match=r"frozen part: approximate \(backbone\.0\.bias, backbone\.0\.weight: not in the"
    ):
        fit(Tuned(dirpath=tmp_path / "b", seed=1, strict_resume=True), tmp_path, 2, ckpt_path=latest(tmp_path / "a"))


def test_another_frozen_part_without_checksums_would_be_called_exact(tmp_path, caplog, monkeypatch):
    """The twin."""
    monkeypatch.setattr(frozen_part, "_has_checksum", lambda *_: True)
    fit(Tuned(dirpath=tmp_path / "a"), tmp_path)
    with caplog.at_level("INFO"):
        fit(Tuned(dirpath=tmp_path / "b", seed=1), tmp_path, 2, ckpt_path=latest(tmp_path / "a"))
    assert ".ckpt: exact" in caplog.text


def test_load_from_checkpoint_takes_the_frozen_part_of_the_module_and_warns_if_it_is_another(tmp_path):
    net = fit(Tuned(dirpath=tmp_path), tmp_path)
    assert_equal(weights(net), weights(Tuned.load_from_checkpoint(latest(tmp_path))))
    with pytest.warns(CheckpointableWarning, match=r"the checkpoint was saved with save_trainable_only=True"):
        Tuned.load_from_checkpoint(latest(tmp_path), seed=1)


def test_load_still_refuses_a_module_that_lacks_or_adds_other_weights(tmp_path):
    class Wider(Tuned):
        def __init__(self, **options):
            super().__init__(**options)
            self.more = torch.nn.Linear(2, 2)

    fit(Tuned(dirpath=tmp_path), tmp_path)
    with pytest.raises(ResumeError, match=r"Missing key\(s\) in state_dict: \"more.weight\", \"more.bias\"\. \n"):
        Wider.load_from_checkpoint(latest(tmp_path))


def test_validate_and_test_read_such_a_file(tmp_path):
    net = fit(Tuned(dirpath=tmp_path), tmp_path)
    expected = trainer(tmp_path).validate(net, loader(2), verbose=False)
    assert trainer(tmp_path).validate(Tuned(), loader(2), ckpt_path=latest(tmp_path), verbose=False) == expected


@pytest.mark.parametrize("weights_only", [False, "best"])
def test_averaged_weights_are_saved_without_the_frozen_part_and_resumed(tmp_path, weights_only):
    def fitted(run, **given):
        net = Tuned(dirpath=tmp_path / run, save_weights_only=weights_only, save_last_k=-1)
        return fit(net, tmp_path, 2, callbacks=[EMAWeightAveraging(decay=0.5)], **given)

    torch.manual_seed(1)
    whole = fitted("a")
    saved = load(tmp_path / "a/epoch_0_batch_2.ckpt")
    assert saved["state_dict"].keys() == saved["current_model_state"].keys() == TRAINED
    assert load(whole.best_model_path)["state_dict"].keys() == TRAINED
    assert_equal(weights(whole), weights(fitted("b", ckpt_path=tmp_path / "a/epoch_0_batch_2.ckpt")))


def test_file_that_user_code_saves_is_without_the_frozen_part_too(tmp_path):
    net = fit(Tuned(dirpath=tmp_path / "a"), tmp_path)
    net.trainer.save_checkpoint(tmp_path / "mine.ckpt")
    assert load(tmp_path / "mine.ckpt")["state_dict"].keys() == TRAINED
    assert_equal(weights(net), weights(Tuned.load_from_checkpoint(tmp_path / "mine.ckpt")))


def test_callback_leaves_out_and_brings_the_frozen_part_of_a_plain_module(tmp_path):
    class Plain(PlainNet):
        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Linear(2, 2).requires_grad_(False)
            torch.nn.init.eye_(self.backbone.weight)
            torch.nn.init.zeros_(self.backbone.bias)

    def fitted(run, **given):
        saving = Checkpointing(dirpath=tmp_path / run, save_trainable_only=True, save_interval=2, save_last_k=-1)
        return fit(Plain(), tmp_path, 2, callbacks=[saving], **given)

    torch.manual_seed(1)
    whole = fitted("a")
    path = tmp_path / "a/epoch_0_batch_2.ckpt"
    assert load(path)["state_dict"].keys() == {"layer.weight", "layer.bias"}
    assert_equal(weights(whole), weights(fitted("b", ckpt_path=path)))


def test_nothing_frozen_leaves_nothing_out_and_says_so(tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(net := Net(dirpath=tmp_path, save_trainable_only=True), tmp_path)
    assert "save_trainable_only=True leaves nothing out" in caplog.text
    assert load(net.last_model_path)["state_dict"].keys() == net.state_dict().keys()
    assert Checkpoints(tmp_path).latest().frozen_checksum is None


def test_argument_cannot_be_set_in_the_middle_of_a_run(tmp_path):
    class Setting(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            with pytest.raises(AttributeError, match="what is frozen is noted before the training begins"):
                trainer.checkpoint_callback.save_trainable_only = True

    fit(Net(dirpath=tmp_path), tmp_path, callbacks=[Setting()])
