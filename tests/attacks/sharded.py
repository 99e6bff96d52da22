"""What a child of the forge does: train a model that is saved in shards, and be struck down."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import torch
from attacks.programs import Calls
from lightning.pytorch.strategies import ModelParallelStrategy
from nets import Net, loader, trainer
from torch.distributed.fsdp import fully_shard

from checkpointable import latest
from checkpointable.saving.save_task import SaveTask

CALLS = ("fsync", "mkdir", "rename", "replace", "rmdir", "symlink", "unlink", "write")


class Parted(Net):
    """Has momentum for its weights, which lie in shards."""

    def configure_model(self) -> None:
        fully_shard(self.layer, mesh=self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def train(where: str, record: str, strike: int = 0, twin: str | None = None) -> str:
    """Go on from the newest checkpoint, to the end."""
    warnings.simplefilter("ignore")
    if twin == "delete first":
        SaveTask._make_room = lambda task: task._delete(task.kept.kept)
    place = Path(where)
    ckpt_path = latest(place)
    Calls(Path(record), strike, CALLS)
    torch.manual_seed(random.randrange(1 << 30) if ckpt_path else 0)
    net = Parted(dirpath=place, save_interval=2)
    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)
    trainer(place, max_epochs=2, num_sanity_val_steps=0, strategy=strategy).fit(
        net, loader(6), loader(2, seed=1), ckpt_path=ckpt_path
    )
    return net.last_model_path
