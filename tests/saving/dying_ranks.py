"""Trains on two ranks that Lightning launches, of which one dies, raises or hangs.

Arguments: a directory; what happens: ``"interrupted"`` (Ctrl-C, which reaches both), ``"terminated"``, ``"killed"``,
``"raises"``, ``"stopped"``, ``"asleep"`` or ``"nothing"``; to which rank; and how many seconds each file takes to
become durable on rank 0. Each rank notes its process and the batches that it trains.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import lightning as L
import torch
from attacks.programs import slow_sync
from nets import Net, loader
from torch.distributed.distributed_c10d import _set_pg_timeout

from checkpointable import latest

BATCH = 5  # in which it happens; the last file is of the batch before
TIMEOUT_SECONDS = 5


class Bad(L.Callback):
    def __init__(self, where: Path, what: str, rank: int) -> None:
        self.where, self.what, self.rank = where, what, rank

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.what in ("stopped", "asleep"):  # not before: a machine under load starts ranks slowly
            _set_pg_timeout(timedelta(seconds=TIMEOUT_SECONDS))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == BATCH and trainer.global_rank == self.rank and self.what != "nothing":
            (self.where / "happened").write_text(str(time.time()))
            if self.what == "interrupted":
                for process in (self.where / "processes").read_text().split():
                    os.kill(int(process), signal.SIGINT)
                return
            if self.what == "terminated":
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if self.what == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "raises":
                raise ValueError("mine")
            if self.what == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(3600)


class Recorded(Net):
    def compute_loss(self, batch: Any, batch_idx: int) -> Any:
        loss = super().compute_loss(batch, batch_idx)
        with open(f"{record}_{self.global_rank}", "a", encoding="utf-8") as lines:
            lines.write(f"{self.current_epoch} {batch_idx} {float(loss.detach()).hex()}\n")
        return loss


if __name__ == "__main__":
    where, what, rank, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    record = where / "record"
    with (where / "processes").open("a") as processes:
        processes.write(f"{os.getpid()}\n")
    if seconds and os.environ.get("LOCAL_RANK", "0") == "0":
        slow_sync(seconds)
    torch.manual_seed(7)
    net = Recorded(dirpath=where / "files", save_interval=BATCH, save_top_k=0, learning_rate=0.1)
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=where, callbacks=[Bad(where, what, rank)],
    )  # fmt: skip
    trainer.fit(net, loader(16, shuffle=True), ckpt_path=latest(where / "files"))
