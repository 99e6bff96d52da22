"""``training_step`` notes that its batch ends an interval; the safe point saves, and judges by itself as well."""

from __future__ import annotations

import pytest
import torch
from nets import Net, files, loader, trainer

from checkpointable.policy.conditions import EveryNBatches
from checkpointable.policy.options import Options
from checkpointable.saving.session import Session

ALL = {"save_interval": 2, "save_last_k": -1, "save_last": False, "save_top_k": 0}
EXPECTED = ["epoch_0_batch_2.ckpt", "epoch_0_batch_4.ckpt"]


class Forgetful(Net):
    """Its step reaches none of ours."""

    def training_step(self, batch, batch_idx):
        return self.compute_loss(batch, batch_idx)


class Eager(Net):
    """Its step notes every batch several times, and batches that are not its own."""

    def training_step(self, batch, batch_idx):
        for other in (batch_idx, batch_idx + 1, batch_idx + 7, batch_idx):
            self._checkpointing.note_batch(other)
        return super().training_step(batch, batch_idx)


class Compiled(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.compute_loss = torch.compile(self.compute_loss, backend="eager")


@pytest.mark.parametrize("net", [Net, Forgetful, Eager, Compiled])
def test_interval_is_saved_once_whatever_the_step_does(tmp_path, net):
    trainer(tmp_path).fit(net(dirpath=tmp_path, **ALL), loader(5))
    assert files(tmp_path) == EXPECTED


def test_noted_batch_is_saved_though_the_safe_point_would_not_judge_so(tmp_path, monkeypatch):
    monkeypatch.setattr(EveryNBatches, "reasons", lambda interval, point: set())
    trainer(tmp_path).fit(Net(dirpath=tmp_path, **ALL), loader(5))
    assert files(tmp_path) == EXPECTED


def test_neither_the_step_nor_the_safe_point_saves_nothing(tmp_path, monkeypatch):
    """The twin: without both, no interval is seen."""
    monkeypatch.setattr(EveryNBatches, "reasons", lambda interval, point: set())
    trainer(tmp_path).fit(Forgetful(dirpath=tmp_path, **ALL), loader(5))
    assert files(tmp_path) == []


def test_step_called_outside_of_a_fit_notes_nothing_that_a_later_fit_saves(tmp_path):
    net = Net(dirpath=tmp_path, **ALL)
    batch = next(iter(loader(1)))
    for batch_idx in range(3):
        net.training_step(batch, batch_idx)
    trainer(tmp_path).fit(net, loader(1))
    assert files(tmp_path) == []


def test_step_and_safe_point_ask_the_same_predicate(tmp_path, monkeypatch):
    asked = []
    original = EveryNBatches.is_due
    monkeypatch.setattr(EveryNBatches, "is_due", lambda rule, batch: asked.append(batch) or original(rule, batch))
    trainer(tmp_path).fit(Net(dirpath=tmp_path, **ALL), loader(3))
    assert asked == [1, 1, 2, 2, 3, 3]


def test_note_batch_without_an_interval_is_harmless():
    session = Session(Options(save_interval=None))
    session.note_batch(0)
    assert session.due.reasons == set()


def test_step_without_a_number_is_harmless():
    net = Net(save_interval=1)
    assert net.training_step(next(iter(loader(1))), None).shape == ()


def test_interval_switched_off_inside_its_batch_saves_nothing(tmp_path):
    class Switching(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            super().on_train_batch_end(outputs, batch, batch_idx)
            if batch_idx == 1:
                self.save_interval = None

    trainer(tmp_path).fit(Switching(dirpath=tmp_path, **ALL), loader(5))
    assert files(tmp_path) == []
