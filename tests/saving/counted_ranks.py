"""Counts the collectives of each batch on two ranks, without our saving and with it, and prints them as JSON.

Argument: a directory.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import lightning as L
import torch
from nets import PlainNet, loader
from torch import distributed

from checkpointable import CheckpointingMixin

warnings.simplefilter("ignore")
where = Path(sys.argv[1])
COUNTED = (
    *("all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "barrier", "broadcast", "gather"),
    *("broadcast_object_list", "gather_object", "monitored_barrier", "reduce", "scatter", "send", "recv"),
)
calls: Counter[str] = Counter()


def count(name: str) -> None:
    function = getattr(distributed, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return function(*args, **kwargs)

    setattr(distributed, name, counting)


class Counting(L.Callback):
    """Notes the calls from the start of one batch to that of the next."""

    def __init__(self) -> None:
        self.found: list[int] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.found.append(calls.total())
        calls.clear()


class Saved(CheckpointingMixin, PlainNet):
    pass


def counted(module: L.LightningModule) -> list[int]:
    counting = Counting()
    L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=where, callbacks=[counting], enable_checkpointing=True,
    ).fit(module, loader(24))  # fmt: skip
    return counting.found[1:]


for name in COUNTED:
    count(name)
conditions = {"save_interval": 8, "train_time_interval": timedelta(hours=1), "every_n_train_steps": 1000}
found = {"without": counted(PlainNet()), "with": counted(Saved(dirpath=where, save_top_k=0, **conditions))}
if torch.distributed.get_rank() == 0:
    print(json.dumps(found))
