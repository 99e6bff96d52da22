"""What is recorded of each kind of training: precision, accumulation, manual optimisation, skipped batches."""

from __future__ import annotations

import math

import pytest
import torch
from resume.stopped import Noisy, confirmed, said, train, without_random_states

from checkpointable import CheckpointableWarning

__all__ = ["said"]  # a fixture


class Exploding(Noisy):
    def compute_loss(self, batch, batch_idx):
        return super().compute_loss(batch, batch_idx) * math.nan


class Manual(Noisy):
    """Returns no loss."""

    def __init__(self, **options):
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.optimizers().zero_grad()
        self.manual_backward(self.compute_loss(batch, batch_idx))
        self.optimizers().step()


class ManualWithLoss(Manual):
    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        return {"loss": self.compute_loss(batch, batch_idx), "other": 1}


class Skipping(Noisy):
    """Skips some batches."""

    def training_step(self, batch, batch_idx):
        return None if batch_idx % 2 else super().training_step(batch, batch_idx)


class Closures(Noisy):
    """Its optimizer calls the closure several times."""

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), max_iter=3)


class Frozen(Noisy):
    """Trains nothing, and returns no loss."""

    def __init__(self, **options):
        super().__init__(**options)
        self.automatic_optimization = False
        self.layer.requires_grad_(False)

    def training_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        return None


KINDS = {
    "nan": (Exploding, {}, "losses"),
    "bf16": (Noisy, {"precision": "bf16-mixed"}, "losses"),
    "true bf16": (Noisy, {"precision": "bf16-true"}, "losses"),
    "accumulation": (Noisy, {"accumulate_grad_batches": 4}, "losses"),
    "anomalies": (Noisy, {"detect_anomaly": True}, "losses"),
    "several closures": (Closures, {}, "losses"),
    "manual": (Manual, {}, "samples of parameters"),
    "manual with a loss": (ManualWithLoss, {}, "losses"),
    "skipped": (Skipping, {}, "losses and samples of parameters"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*training_step. returned .None", "ignore:.*anomaly detection")
def test_each_kind_of_training_is_confirmed(tmp_path, said, kind):
    net_class, options, what = KINDS[kind]
    train(tmp_path, net_class, stop=7, **options)
    train(tmp_path, net_class, **options)
    assert said() == confirmed(3, what)


def test_manual_training_with_other_random_numbers_is_called_a_difference(tmp_path, monkeypatch):
    """The twin of the sample of parameters."""
    train(tmp_path, Manual, stop=7)
    without_random_states(monkeypatch)
    with pytest.warns(CheckpointableWarning, match="batch 5 of the run has the sample of parameters"):
        train(tmp_path, Manual)


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. returned .None")
def test_training_of_nothing_claims_nothing(tmp_path, said):
    train(tmp_path, Frozen, stop=7)
    train(tmp_path, Frozen)
    assert said() == ["nothing to compare: the run stopped right after its save"]
