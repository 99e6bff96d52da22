"""Trains two epochs in two gloo processes, from the start or from a file, and records what each rank did.

Arguments: the directory for the files and the records, the ambient seed, and optionally the file to resume from. With
``"kill"`` in place of that file both are killed in their fourth batch, once there is a file.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import lightning as L
import numpy as np
import torch
from runs import Digits, digest
from torch.nn import functional as F
from torch.utils.data import DataLoader

from checkpointable import CheckpointingModule


class Recording(CheckpointingModule):
    """Records every batch of this rank, and the running means of every epoch."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.record: list[Any] = []

    def note(self, batch_idx: int, index: torch.Tensor, inputs: torch.Tensor, loss: torch.Tensor) -> None:
        kind = "train" if self.training else "validate"
        self.record.append([kind, self.current_epoch, batch_idx, index.tolist(), digest(inputs), float(loss).hex()])

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        means = {name: float(value).hex() for name, value in sorted(self.trainer.callback_metrics.items())}
        self.record.append(["means", self.current_epoch, means])


class Recorded(Recording):
    """Has dropout and batch norm."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.3), torch.nn.Linear(6, 2)
        )
        self.dies_in: Path | None = None

    def compute_loss(self, batch: Any, batch_idx: int) -> torch.Tensor:
        index, inputs, labels = batch
        if self.dies_in is not None and batch_idx == 3:
            while not list(self.dies_in.glob("*.ckpt")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        loss = F.cross_entropy(self.net(inputs), labels)
        self.note(batch_idx, index, inputs, loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.net.parameters(), lr=0.05)


class Seed(L.Callback):
    """Sets the seed of Lightning's distributed sampler, after Lightning has reset the ranks with it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def setup(self, *_: Any, **__: Any) -> None:
        os.environ["PL_GLOBAL_SEED"] = str(self.seed)


def main(where: Path, seed: int, ckpt_path: str | None) -> None:
    warnings.simplefilter("ignore")
    os.environ.pop("PL_GLOBAL_SEED", None)  # inherited; Lightning would seed both ranks equally
    alone = seed + 1000 * int(os.environ.get("LOCAL_RANK", 0))  # each rank has random numbers of its own
    random.seed(alone), np.random.seed(alone), torch.manual_seed(alone)
    module = Recorded(dirpath=where, save_interval=2, every_n_epochs=1, save_last_k=-1, save_top_k=0)
    if ckpt_path == "kill":
        module.dies_in, ckpt_path = where, None
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=where, callbacks=[Seed(seed)],
    )  # fmt: skip
    training = DataLoader(Digits(40), batch_size=4, shuffle=True)
    trainer.fit(module, training, DataLoader(Digits(16), batch_size=4), ckpt_path=ckpt_path)
    outcome = {
        "record": module.record,
        "weights": {name: digest(weight) for name, weight in module.state_dict().items()},
        "random": [random.random(), float(np.random.rand()), float(torch.rand(()))],
        "step": trainer.global_step,
    }
    (where / f"rank_{trainer.global_rank}.json").write_text(json.dumps(outcome))
    torch.distributed.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
