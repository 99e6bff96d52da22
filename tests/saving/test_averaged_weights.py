"""A file's metadata says which copy of the weights it has, where callbacks average them."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from nets import MixedNet, load, loader, trainer

from checkpointable import Checkpoints
from checkpointable.catalog.info import read_info
from checkpointable.lightning_internals import averaging


def fit(net, where, *callbacks, epochs=1):
    fitted = trainer(where, max_epochs=epochs, callbacks=list(callbacks))
    fitted.fit(net, loader(3), loader(1))
    return fitted


@pytest.mark.parametrize("weights_only", [False, True, "best"])
def test_averaged_weights_are_those_that_were_validated_and_the_file_says_so(tmp_path, weights_only):
    average = EMAWeightAveraging(decay=0.5)
    fit(MixedNet(dirpath=tmp_path, save_weights_only=weights_only), tmp_path, average)
    info = next(info for info in Checkpoints(tmp_path) if info.kind == "best")
    assert (info.weights, info.weights_only) == ("averaged", bool(weights_only))
    assert torch.equal(load(info.path)["state_dict"]["layer.weight"], average._average_model.module.layer.weight)
    assert "current_model_state" not in load(info.path) or not weights_only
    assert "averaged" in repr(Checkpoints(tmp_path))


def test_file_without_averaging_has_the_current_weights(tmp_path):
    fit(MixedNet(dirpath=tmp_path), tmp_path)
    assert {info.weights for info in Checkpoints(tmp_path)} == {"current"}


def test_average_that_the_module_has_at_the_end_is_named_and_before_that_the_current_weights(tmp_path):
    average = StochasticWeightAveraging(0.01, swa_epoch_start=1, annealing_epochs=1)
    net = MixedNet(dirpath=tmp_path)
    fit(net, tmp_path, average, epochs=3).save_checkpoint(tmp_path / "mine.ckpt")
    assert torch.equal(net.layer.weight, average._average_model.layer.weight)
    assert read_info(tmp_path / "mine.ckpt").weights == "averaged"
    assert read_info(net.last_model_path).weights == "current"


def test_run_averaged_with_batch_norm_that_has_ended_is_started_again(tmp_path):
    class Normed(MixedNet):
        def __init__(self, **options):
            super().__init__(**options)
            self.norm = torch.nn.BatchNorm1d(2)

    ended = []
    for ckpt_path in (None, tmp_path / "last.ckpt"):
        average = StochasticWeightAveraging(0.01, swa_epoch_start=1, annealing_epochs=1)
        net, own = Normed(dirpath=tmp_path), trainer(tmp_path, max_epochs=3, callbacks=[average])
        own.fit(net, loader(3), loader(1), ckpt_path=ckpt_path)
        ended.append((own.current_epoch, own.max_epochs, [weight.tolist() for weight in net.parameters()]))
    assert ended[0] == ended[1]


def test_file_from_inside_a_validation_of_the_average_does_not_say_which_it_is(tmp_path):
    class Saving(L.Callback):
        def on_validation_batch_end(self, trainer, *args):
            trainer.save_checkpoint(tmp_path / "mine.ckpt")

    fit(MixedNet(dirpath=tmp_path / "ours"), tmp_path, EMAWeightAveraging(), Saving())
    assert read_info(tmp_path / "mine.ckpt").weights is None


class Own(MixedNet):
    """Saves weights of its own making."""

    def on_save_checkpoint(self, checkpoint):
        checkpoint["state_dict"] = {name: 0 * value for name, value in checkpoint["state_dict"].items()}


def test_file_with_weights_of_user_code_does_not_say_which_they_are(tmp_path):
    fit(net := Own(dirpath=tmp_path), tmp_path)
    assert read_info(net.last_model_path).weights is None


def test_weights_of_user_code_would_be_called_current_by_their_names_alone(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr(averaging, "_place", lambda value: None)
    fit(net := Own(dirpath=tmp_path), tmp_path)
    assert read_info(net.last_model_path).weights == "current"
