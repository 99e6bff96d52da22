"""Starts two gloo processes that are given other checkpoints, and prints for each scenario what each rank did.

Arguments: an empty directory, in which each rank works in a directory of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import lightning as L
import torch
from many_ranks import in_processes
from torch.utils.data import DataLoader, TensorDataset

from checkpointable import CheckpointableWarning, CheckpointingModule
from checkpointable.saving import agreement


class Net(CheckpointingModule):
    """The smallest one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(save_top_k=0, **options)
        self.layer = torch.nn.Linear(2, 1)

    def compute_loss(self, batch: Any) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()


def fit(where: Path, ranks: int, ckpt_path: str | None) -> str:
    """Train two epochs; return from which file."""
    torch.set_num_threads(1)
    trainer = L.Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", max_epochs=2, logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=where,
    )  # fmt: skip
    module = Net(dirpath=where, every_n_epochs=1, save_interval=None, save_last_k=-1)
    trainer.fit(module, DataLoader(TensorDataset(torch.randn(8, 2)), batch_size=2), ckpt_path=ckpt_path)
    return f"trained from {trainer.ckpt_path}"


def scenario(where: Path, name: str, *given: str | None) -> None:
    """Start two ranks with these checkpoints, and print what became of them."""

    def run(rank: int) -> None:
        os.chdir(where / f"machine_{rank}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CheckpointableWarning)
            try:
                outcome = fit(where / name, 2, given[rank])
            except Exception as error:  # noqa: BLE001  # the test reads it
                outcome = f"{type(error).__name__}: {error}"
        told = [str(it.message) for it in caught if issubclass(it.category, CheckpointableWarning)]
        (where / f"{name}_{rank}.json").write_text(json.dumps({"outcome": outcome, "told": told}))
        os._exit(0)  # without waiting for the other rank

    in_processes(2, run)
    outcomes = [json.loads((where / f"{name}_{rank}.json").read_text()) for rank in (0, 1)]
    print(json.dumps({"name": name, "ranks": outcomes}), flush=True)


def main(where: Path) -> None:
    for rank in (0, 1):
        (where / f"machine_{rank}").mkdir()
        in_processes(1, lambda _, rank=rank: print(fit(where / f"run_{rank}", 1, None)))  # type: ignore[misc]
    one, other = (str(where / f"run_{rank}" / "epoch_0_batch_4.ckpt") for rank in (0, 1))
    for rank, file in enumerate((one, other)):
        shutil.copy(file, where / f"machine_{rank}" / "same_name.ckpt")
    shutil.copy(one, where / "machine_0" / "on_one_machine.ckpt")
    scenario(where, "only_rank_0_looked_in_time", one, None)
    scenario(where, "each_another", one, other)
    scenario(where, "rank_0_none", None, one)
    scenario(where, "other_machine_lacks_it", "on_one_machine.ckpt", "on_one_machine.ckpt")
    scenario(where, "other_run_under_the_same_name", "same_name.ckpt", "same_name.ckpt")
    agreement._check_read = lambda trainer, path, failure: None
    scenario(where, "twin", "same_name.ckpt", "same_name.ckpt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
