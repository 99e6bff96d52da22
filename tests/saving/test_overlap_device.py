"""A training whose tensors lie on a device that copies late: every file is the state of its safe point."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from copying import Wide, fit, note_states, torn
from devices import Device, late_in_training, never_held_back
from nets import files

ALL = [f"epoch_0_batch_{batch}.ckpt" for batch in (1, 2, 3, 4, 5)]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return late_in_training(monkeypatch)


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    return note_states(monkeypatch)


class Scaling(L.Callback):
    """Changes the weights between two steps, in a way that torch does not count."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        for weight in pl_module.parameters() if trainer.global_step > 2 else ():
            weight.data.mul_(0.9)


def test_every_file_is_the_state_of_its_safe_point(tmp_path, truth, device):
    fit(Wide(dirpath=tmp_path / "saved"), tmp_path)
    assert files(tmp_path / "saved") == ALL
    assert torn(tmp_path / "saved", truth) == []
    assert len(device.transfers) > 5, "parameters and moments were left to the device"


def test_files_are_torn_where_nothing_is_held_back(tmp_path, truth, device, monkeypatch):
    """The twin."""
    never_held_back(monkeypatch)
    fit(Wide(dirpath=tmp_path / "saved"), tmp_path)
    assert torn(tmp_path / "saved", truth) != []


@pytest.mark.filterwarnings("ignore:the parameters were changed between two optimizer steps")
def test_weights_that_user_code_changes_between_steps_tear_no_file(tmp_path, truth, device):
    fit(Wide(dirpath=tmp_path / "saved"), tmp_path, callbacks=Scaling)
    assert torn(tmp_path / "saved", truth) == []
    assert files(tmp_path / "saved")[-1] == ALL[-1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_every_file_of_a_training_on_a_gpu_is_the_state_of_its_safe_point(tmp_path, truth, monkeypatch):
    monkeypatch.undo()
    truth = note_states(monkeypatch)
    fit(Wide(dirpath=tmp_path / "saved"), tmp_path, accelerator="gpu", devices=1)
    assert files(tmp_path / "saved") == ALL
    on_host = {batches: _on_host(state) for batches, state in truth.items()}
    assert torn(tmp_path / "saved", on_host) == []


def _on_host(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_host(item) for key, item in value.items()}
    return [_on_host(item) for item in value] if isinstance(value, (list, tuple)) else value
