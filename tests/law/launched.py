"""Trains on two ranks of one of Lightning's launchers, or of torchrun; both are killed once, where told.

Arguments: a directory; the strategy; and the step in which both are killed, or -1. Each rank appends a line for each
batch to a file of its own. A run that was killed goes on from its newest file.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import lightning as L
import torch
from ranks import Recording
from runs import Digits
from torch.nn import functional as F
from torch.utils.data import DataLoader


class Recorded(Recording):
    """Has dropout, and dies in the step where it is told to, once."""

    def __init__(self, where: Path, dies_in: int, **options: Any) -> None:
        super().__init__(**options)
        self.where, self.dies_in = where, dies_in
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Dropout(0.3), torch.nn.Linear(6, 2))

    def compute_loss(self, batch: Any, batch_idx: int) -> torch.Tensor:
        index, inputs, labels = batch
        if self.training and self.global_step == self.dies_in and not (self.where / "died").exists():
            torch.distributed.barrier()
            (self.where / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        loss = F.cross_entropy(self.net(inputs), labels)
        with (self.where / f"record_{self.global_rank}").open("a") as lines:
            kind = "train" if self.training else "validate"
            place = f"{kind} {self.current_epoch} {batch_idx} {index.tolist()}"
            lines.write(f"{place} {float(loss.detach()).hex()} {float(torch.rand(()))}\n")
        return loss

    def on_fit_end(self) -> None:
        weights = [float(it).hex() for it in self.net[0].weight.detach().flatten()]
        (self.where / f"final_{self.global_rank}").write_text(repr(weights))


def main(where: Path, strategy: str, dies_in: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(os.getpid() if (where / "died").exists() else 3)
    os.environ["PL_GLOBAL_SEED"] = "3"
    options = {"dirpath": where / "files", "save_interval": 2, "async_save": False, "save_top_k": 0, "resume": "auto"}
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy=strategy, max_epochs=2, logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=where,
    )  # fmt: skip
    training = DataLoader(Digits(40), batch_size=4, shuffle=True)
    trainer.fit(Recorded(where, dies_in, **options), training, DataLoader(Digits(16), batch_size=4))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
