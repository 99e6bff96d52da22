"""Trains to the end, resuming from the newest file, and writes a line for each batch; for a test that kills it.

Each line is appended to ``record.txt`` and printed, and training goes on when a line has come in reply: so the test is
never late for a kill.

Arguments: the directory for the files, and for ``record.txt`` and, at the end, ``final.txt``; the door (see
``doors``); and ``"other randomness"`` for a twin that does not restore the random states.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from doors import is_callback, opened, tree_of
from runs import Digits
from torch.nn import functional as F
from torch.utils.data import DataLoader

from checkpointable import CheckpointableWarning, Checkpointing, latest
from checkpointable.resume import evidence, rng

BATCHES, EPOCHS = 8, 3
DEADLINE_SECONDS = 600
PAUSE_SECONDS = 0.02  # so that a moment chosen at random falls anywhere in a batch


class Killable:
    """Records each batch while it is trained, so the record may be ahead of the saved files."""

    def __init__(self, where: Path, **options: Any) -> None:
        super().__init__(**options)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.3), torch.nn.Linear(6, 2)
        )
        self.file = (where / "record.txt").open("a")

    def compute_loss(self, batch: Any, batch_idx: int) -> torch.Tensor:
        index, inputs, labels = batch
        loss = F.cross_entropy(self.net(inputs), labels)
        if not self.trainer.sanity_checking:
            kind = "train" if self.training else f"validate-{self.global_step}"
            place = f"{kind} {self.current_epoch} {batch_idx}"
            self.write(f"{place} {','.join(map(str, index.tolist()))} {float(loss).hex()}")
        time.sleep(PAUSE_SECONDS)
        return loss

    def write(self, line: str) -> None:
        self.file.write(f"{line}\n")
        self.file.flush()
        print(line, flush=True)
        sys.stdin.readline()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.net.parameters(), lr=0.05)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}


def sha256_of_state(module: Any, trainer: Any) -> str:
    """A hash of weights, optimizer, scheduler, best loss and generators."""
    found = hashlib.sha256()
    states = trainer.optimizers[0].state_dict()["state"].values()
    tensors = [*module.state_dict().values(), *(value for state in states for value in state.values())]
    for tensor in tensors:
        found.update(tensor.detach().numpy().tobytes())
    schedulers = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    drawn = random.random(), float(np.random.rand()), float(torch.rand(()))
    found.update(repr((schedulers, module.best_val_loss, trainer.global_step, drawn)).encode())
    return found.hexdigest()


def main(where: Path, door: str, twin: str) -> None:
    signal.alarm(DEADLINE_SECONDS)
    warnings.simplefilter("ignore")
    warnings.simplefilter("default", CheckpointableWarning)
    if twin == "other randomness":
        rng.restore = lambda states: None
        evidence.same = lambda saved, now: True  # the report does not notice
    ckpt_path, tree = latest(where), tree_of(door)
    tree.seed_everything(1 if ckpt_path is None else os.getpid(), verbose=False)
    options: dict[str, Any] = {"dirpath": where, "save_interval": 2, "every_n_epochs": 1, "save_last_k": 2}
    if is_callback(door):  # it looks by itself
        ckpt_path, options["resume"] = None, "auto"
    module = opened(door, Killable)(where, **options)
    trainer = tree.Trainer(
        accelerator="cpu", devices=1, max_epochs=EPOCHS, logger=False, enable_progress_bar=False,
        enable_model_summary=False, val_check_interval=4, default_root_dir=where,
        callbacks=[Checkpointing(**options)] if is_callback(door) else [],
    )  # fmt: skip
    training = DataLoader(Digits(BATCHES * 4), batch_size=4, shuffle=True)
    trainer.fit(module, training, DataLoader(Digits(12), batch_size=4, shuffle=True), ckpt_path=ckpt_path)
    (where / "final.txt").write_text(sha256_of_state(module, trainer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
