"""A small model that lies in parts on the ranks, trained on one rank."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from checkpointable import (
    CheckpointingModule,
)

WHOLE = {"save_distributed_checkpoint": False}
ONLY_BEST = {"save_interval": None, "every_n_epochs": None, "save_top_k": -1, "monitor": "val_loss"}


@pytest.fixture
def group_of_one():
    before = dict(os.environ)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


class Parted(CheckpointingModule):
    """Has dropout, a running mean, and a record of its losses."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"save_interval": 2, "every_n_epochs": 1, "save_last_k": -1, "save_top_k": 0, **options})
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3))
        self.last = torch.nn.Linear(8, 1)
        self.losses: list[Any] = []

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def compute_loss(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.last(self.net(batch)).square().mean()
        if self.training:
            self.losses.append((self.current_epoch, batch_idx, float(loss).hex()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def trainer(where: Path, parallel: dict[str, Any] | None, **options: Any) -> L.Trainer:
    if parallel is not None:
        options["strategy"] = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1, **parallel)
    return L.Trainer(
        **{"accelerator": "cpu", "devices": 1, "max_epochs": 2, "logger": False, "default_root_dir": where, **options},
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def data(shuffle: bool = False) -> DataLoader:
    return DataLoader(torch.randn(20, 3, generator=torch.Generator().manual_seed(5)), batch_size=4, shuffle=shuffle)


def fit(
    where: Path,
    *,
    seed: int = 1,
    ckpt_path: Any = None,
    parallel: dict[str, Any] | None = {},  # noqa: B006  # read only
    options: dict[str, Any] | None = None,
    **given: Any,
) -> Parted:
    L.seed_everything(seed, verbose=False)
    net = Parted(**{"dirpath": where, **(options or {})})
    trainer(where, parallel, **given).fit(net, data(shuffle=True), data(), ckpt_path=ckpt_path)
    return net


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def names(where: Path) -> list[str]:
    return sorted(path.name for path in where.glob("*.ckpt") if not path.is_symlink())
