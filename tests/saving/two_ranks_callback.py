"""Two gloo processes train a module that they do not write, with the callback; both are killed where told.

Arguments: the directory, the seed, and the batch in whose step both are killed, or -1. Each rank appends the losses of
its batches to a file of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import lightning as L
import torch
from nets import loader

from checkpointable import Checkpointing

where, seed, dies_in = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
warnings.simplefilter("ignore")
torch.set_num_threads(1)


class Foreign(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Dropout(0.4), torch.nn.Linear(4, 1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = self.net(batch[0]).square().mean()
        with open(where / f"rank_{self.global_rank}.txt", "a", encoding="utf-8") as record:
            record.write(f"{self.current_epoch} {batch_idx} {float(loss).hex()}\n")
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val_loss", self.net(batch[0]).square().mean(), sync_dist=True)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == dies_in:
            torch.distributed.barrier()
            os.kill(os.getpid(), signal.SIGKILL)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.05)


L.seed_everything(seed, verbose=False)
trainer = L.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False, enable_progress_bar=False,
    enable_model_summary=False, default_root_dir=where,
    callbacks=[Checkpointing(dirpath=where / "runs", save_interval=2, async_save=False, resume="auto", save_top_k=0)],
)  # fmt: skip
trainer.fit(Foreign(), loader(10, shuffle=True), loader(2))
