"""A monitor whose mode is the wrong one: one warning, from the metric itself or from its name."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchmetrics
from nets import Net, loader, trainer

from checkpointable import CheckpointableWarning


class Judged(Net):
    """Logs a value under a name: a number, or a torchmetrics metric."""

    def __init__(self, name, metric=None, **options):
        super().__init__(monitor=name, **options)
        self.name, self.metric = name, metric

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        if self.metric is not None:
            self.metric.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
        self.log(self.name, 0.5 if self.metric is None else self.metric)


def said(tmp_path, *given, **options):
    """The warnings about the mode in a fit of two epochs, with nothing else warned about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CheckpointableWarning)
        trainer(tmp_path, max_epochs=2).fit(Judged(*given, dirpath=tmp_path, **options), loader(2), loader(1))
    return [str(warning.message) for warning in caught if "is judged with mode" in str(warning.message)]


@pytest.mark.parametrize("options", [{}, {"mode": "min"}, {"save_top_k": 0, "patience": 3}])
def test_name_that_says_higher_under_mode_min_is_warned_about_once_with_the_cure(tmp_path, options):
    (message,) = said(tmp_path, "val_acc", **options)
    assert "monitor='val_acc' is judged with mode='min', so the minimum is best" in message
    assert "by its name, higher is better. Pass mode='max'." in message


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("val_acc", {"mode": "max"}),
        ("val_acc", {"save_top_k": 0}),
        ("mape", {}),
        ("score", {}),
        ("score", {"mode": "max"}),
    ],
)
def test_name_that_does_not_contradict_the_mode_is_not_warned_about(tmp_path, name, options):
    assert said(tmp_path, name, **options) == []


@pytest.mark.parametrize(
    ("metric", "mode", "other"),
    [
        (torchmetrics.R2Score, "min", "max"),
        (torchmetrics.R2Score, "max", None),
        (torchmetrics.MeanSquaredError, "max", "min"),
        (torchmetrics.MeanSquaredError, "min", None),
    ],
)
def test_logged_metric_says_which_mode_is_meant_under_any_name(tmp_path, metric, mode, other):
    found = said(tmp_path, "quality", metric(), mode=mode)
    assert [f"Pass mode={other!r}." in message for message in found] == ([True] if other else [])


def test_logged_metric_is_better_evidence_than_its_name(tmp_path):
    assert said(tmp_path, "accuracy", torchmetrics.MeanSquaredError()) == []
