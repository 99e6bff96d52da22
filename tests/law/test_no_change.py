"""Saving does not change the numbers of a training, nor does the number of workers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from runs import Config, Digits, digest, train
from torch.nn import functional as F
from torch.utils.data import DataLoader

from checkpointable import CheckpointingMixin

pytestmark = pytest.mark.filterwarnings("ignore")

OFF: dict[str, Any] = {"save_interval": None, "monitor": None, "save_last": False}
SAVING = {"off": OFF, "every_batch": {"save_interval": 1}, "every_seventh": {"save_interval": 7, "save_last_k": -1}}


class Still(Digits):
    """The same samples without augmentation: in plain Lightning, each worker process has random numbers of its own."""

    def __getitem__(self, index: int) -> Any:
        return index, self.inputs[index], int(self.inputs[index].sum() > 0)


class Plain(L.LightningModule):
    """A module that does not use checkpointable."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.3), torch.nn.Linear(6, 2)
        )

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = F.cross_entropy(self.net(batch[1]), batch[2])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[1]), batch[2]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.05)


class Ours(CheckpointingMixin, Plain):
    """The same module with the mixin, and nothing else changed."""


def trained(module_class: type[Plain], where: Path, workers: int, **options: Any) -> dict[str, Any]:
    """Weights, optimizer and generators at the end of three epochs."""
    L.seed_everything(1, verbose=False)
    module = module_class(**options)
    data = Digits if workers == 0 else Still
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=3, logger=False, enable_progress_bar=False,
        enable_model_summary=False, val_check_interval=0.5, default_root_dir=where,
    )  # fmt: skip
    trainer.fit(
        module,
        DataLoader(data(40), batch_size=4, shuffle=True, num_workers=workers),
        DataLoader(data(12), batch_size=4, shuffle=True, num_workers=workers),
    )
    states = [state for optimizer in trainer.optimizers for state in optimizer.state_dict()["state"].values()]
    return {
        "weights": {name: digest(weight) for name, weight in module.state_dict().items()},
        "optimizer": [digest(value) for state in states for value in state.values()],
        "random": (random.random(), float(np.random.rand()), float(torch.rand(()))),
        "step": trainer.global_step,
    }


@pytest.fixture(scope="module", params=[0, 2], ids=["augmented_without_workers", "two_workers"])
def plain(request, tmp_path_factory):
    return request.param, trained(Plain, tmp_path_factory.mktemp("plain"), request.param)


@pytest.mark.parametrize("saving", ["off", "every_batch", pytest.param("every_seventh", marks=pytest.mark.sweep)])
def test_weights_and_generators_are_those_of_a_plain_module(tmp_path, plain, saving):
    workers, expected = plain
    assert trained(Ours, tmp_path, workers, dirpath=tmp_path, **SAVING[saving]) == expected
    assert any(tmp_path.rglob("*.ckpt")) == (saving != "off")


@pytest.mark.parametrize("sampler", ["shuffle", "generator"])
def test_numbers_do_not_depend_on_the_number_of_workers(tmp_path, sampler):
    one = train(Config(sampler=sampler, workers=1), tmp_path / "1", seed=1, **OFF)
    three = train(Config(sampler=sampler, workers=3), tmp_path / "3", seed=1, **OFF)
    assert one.events == three.events
    assert one.final == three.final
