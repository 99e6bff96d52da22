"""``save_trainable_only=True`` where a file has two copies of the weights: what one has otherwise stays in it."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from nets import load
from resume.test_frozen_part import FROZEN, TRAINED, Tuned, assert_equal, fit, weights

from checkpointable import latest
from checkpointable.resume import frozen_part


def resumed_with_rounded_averages(where):
    """Averages of frozen weights are not the weights themselves where the decay is no power of two."""
    torch.manual_seed(1)
    whole, resumed = (
        weights(fit(Tuned(dirpath=where / run, save_last_k=-1), where, 2, ckpt_path=path, callbacks=[average]))
        for run, path in (("a", None), ("b", where / "a/epoch_1_batch_2.ckpt"))
        for average in [EMAWeightAveraging(decay=0.9)]
    )
    assert_equal(whole, resumed)


def test_averages_of_the_frozen_part_that_are_rounded_stay_in_the_file(tmp_path):
    resumed_with_rounded_averages(tmp_path)
    saved = load(tmp_path / "a/epoch_1_batch_2.ckpt")
    assert saved["current_model_state"].keys() == TRAINED
    assert FROZEN & saved["state_dict"].keys()


def test_frozen_part_is_left_out_of_the_files_of_a_resumed_run_with_rounded_averages_too(tmp_path):
    resumed_with_rounded_averages(tmp_path)
    assert load(latest(tmp_path / "b"))["current_model_state"].keys() == TRAINED


def test_run_with_rounded_averages_is_another_one_where_they_are_left_out(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr(frozen_part, "same", lambda saved, own: saved is not None)
    with pytest.raises(AssertionError):
        resumed_with_rounded_averages(tmp_path)


def test_weight_that_a_hook_saves_with_other_values_stays_in_the_file(tmp_path):
    class Doubling(Tuned):
        def on_save_checkpoint(self, checkpoint):
            super().on_save_checkpoint(checkpoint)
            name = "backbone.0.weight"
            checkpoint["state_dict"] = {**checkpoint["state_dict"], name: 2 * self.state_dict()[name]}

    net = fit(Doubling(dirpath=tmp_path), tmp_path)
    assert torch.equal(load(latest(tmp_path))["state_dict"]["backbone.0.weight"], 2 * net.backbone[0].weight)
