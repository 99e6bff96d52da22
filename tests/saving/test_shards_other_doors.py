"""Models that lie in parts, through the other ways in: the callback, ``pytorch_lightning``, parts that are compiled."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from saving.parted import data, group_of_one  # noqa: F401  # a fixture
from torch.distributed.fsdp import fully_shard

import checkpointable
from checkpointable import Checkpoints

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("group_of_one")]


def parted(base: type, *, compiles: bool, **options: Any) -> Any:
    class Parted(base):
        def __init__(self) -> None:
            super().__init__(**options)
            self.net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3))
            self.last = torch.nn.Linear(8, 1)
            self.losses: list[str] = []

        def configure_model(self) -> None:
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])
            if compiles:
                self.net.compile(backend="eager")

        def compute_loss(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = self.last(self.net(batch)).square().mean()
            self.losses.append(float(loss.detach()).hex())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    if base.__name__ == "LightningModule":
        Parted.training_step = Parted.compute_loss
    return Parted()


def fit(where: Path, package: str, door: str, seed: int, ckpt_path: Any = None) -> list[str]:
    lightning = import_module(package)
    ours = import_module("checkpointable.pl") if package == "pytorch_lightning" else checkpointable
    options = {"dirpath": where, "save_interval": 2, "save_last_k": -1}
    lightning.seed_everything(seed, verbose=False)
    if door == "callback":
        net, callbacks = parted(lightning.LightningModule, compiles=False), [ours.Checkpointing(**options)]
    else:
        net, callbacks = parted(ours.CheckpointingModule, compiles=door == "compiled", **options), []
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=2, logger=False, default_root_dir=where, callbacks=callbacks,
        strategy=lightning.strategies.ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1),
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(net, data(shuffle=True), ckpt_path=ckpt_path)
    return net.losses


@pytest.mark.parametrize(
    ("package", "door"),
    [
        ("lightning.pytorch", "callback"),
        ("lightning.pytorch", "compiled"),
        ("pytorch_lightning", "module"),
        ("pytorch_lightning", "callback"),
    ],
)
def test_resume_through_any_door_is_the_uninterrupted_run(tmp_path, package, door):
    straight = fit(tmp_path / "straight", package, door, 1)
    resumed = fit(tmp_path / "again", package, door, 2, tmp_path / "straight" / "epoch_0_batch_2.ckpt")
    assert len(straight) == 10
    assert resumed == straight[2:]
    assert {info.exactness for info in Checkpoints(tmp_path / "straight")} == {"exact"}
