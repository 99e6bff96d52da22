"""Trains in gloo processes, resumes from files of that training, and prints for each file how the two runs differ.

Arguments: an empty directory, and a ``Case`` in JSON. The processes are forked from one that has imported everything.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import lightning as L
import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from ranks import Recording, Seed
from runs import Digits, digest
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from checkpointable import latest
from checkpointable.catalog.info import read_info
from checkpointable.lightning_internals import ddp


@dataclass(frozen=True)
class Case:
    """How to train, and from which files to resume.

    Attributes:
        ddp: Arguments of ``DDPStrategy``.
        parallel: Arguments of ``ModelParallelStrategy``, which takes its place, and parts the model over all ranks.
        trainer: Further ones of the trainer.
        files: Names of the files to resume from; none: all.
        unparted: Whether the last layer is left whole on each rank, so that nothing keeps it equal.
        batch_norm: Whether the module has it, so that no batch may have a single sample.
        manual: Whether it steps by itself, so that DDP leaves each rank its own running means of batch norm.
        dies: The last rank kills itself in this batch of all, and the resume is from what is found; 0: it does not.
        changes: Whether each second batch uses the layers in another order.
        twins: Names of those from which to resume once more, without the order of the sums.
    """

    ranks: int = 3
    samples: int = 48
    workers: int = 0
    ddp: dict[str, Any] = field(default_factory=dict)
    parallel: dict[str, Any] | None = None
    trainer: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    unparted: bool = False
    batch_norm: bool = True
    manual: bool = False
    dies: int = 0
    changes: bool = False
    twins: tuple[str, ...] = ()


class Recorded(Recording):
    """Has dropout, batch norm and more than one bucket of gradients."""

    def __init__(self, case: Case, **options: Any) -> None:
        super().__init__(**options)
        self.case, self.automatic_optimization = case, not case.manual
        self.first, self.last = torch.nn.Linear(3, 500), torch.nn.Linear(500, 2)
        self.norm = torch.nn.BatchNorm1d(500) if case.batch_norm else torch.nn.LayerNorm(500)
        self.one, self.two = torch.nn.Linear(500, 500), torch.nn.Linear(500, 500)
        self.unused = torch.nn.Linear(2, 2) if "find_unused_parameters" in case.ddp else None

    def configure_model(self) -> None:
        if self.case.parallel is not None:
            parts = (self.first, self.norm, self.one, self.two, *([] if self.case.unparted else [self.last]))
            for part in parts:
                fully_shard(part, mesh=self.device_mesh["data_parallel"])

    def compute_loss(self, batch: Any, batch_idx: int) -> torch.Tensor:
        index, inputs, labels = batch
        done = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        if self.training and done == self.case.dies and self.global_rank == self.case.ranks - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        hidden = F.dropout(F.relu(self.norm(self.first(inputs))), 0.3, self.training)
        layers = [self.one, self.two]
        for layer in reversed(layers) if self.case.changes and batch_idx % 2 else layers:
            hidden = F.relu(layer(hidden))
        loss = F.cross_entropy(self.last(hidden), labels)
        self.note(batch_idx, index, inputs, loss)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        if self.case.manual:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def train(case: Case, where: Path, rank: int, seed: int, ckpt_path: str | None) -> None:
    """Train on one rank, and write what it did and how exact the resume calls itself."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    alone = seed + 1000 * rank  # each rank has random numbers of its own
    random.seed(alone), np.random.seed(alone), torch.manual_seed(alone)
    given = {"save_interval": 1, "every_n_epochs": 1, "save_last_k": -1, "save_top_k": 0, **case.options}
    module = Recorded(case, dirpath=where, **given)
    trainer = L.Trainer(
        accelerator="cpu", devices=case.ranks, strategy=strategy(case),
        logger=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=where, callbacks=[Seed(seed)], **{"max_epochs": 2, **case.trainer},
    )  # fmt: skip
    training = DataLoader(Digits(case.samples), batch_size=4, shuffle=True, num_workers=case.workers)
    trainer.fit(module, training, DataLoader(Digits(24), batch_size=4), ckpt_path=ckpt_path)
    states = [state for optimizer in trainer.optimizers for state in optimizer.state_dict()["state"].values()]
    outcome = {
        "record": module.record,
        "weights": {name: digest(whole(weight)) for name, weight in module.state_dict().items()},
        "optimizer": [digest(whole(value)) for state in states for value in state.values() if torch.is_tensor(value)],
        "random": [random.random(), float(np.random.rand()), float(torch.rand(()))],
        "step": trainer.global_step,
    }
    (where / f"rank_{rank}.json").write_text(json.dumps(outcome))


def strategy(case: Case) -> Any:
    """The strategy of a case."""
    if case.parallel is not None:
        return ModelParallelStrategy(data_parallel_size=case.ranks, tensor_parallel_size=1, **case.parallel)
    return DDPStrategy(**case.ddp) if case.ranks > 1 else "auto"


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the parts of all ranks."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def in_processes(ranks: int, run: Callable[[int], None]) -> None:
    """Call ``run`` with each rank, in as many processes forked from this one.

    Raises:
        RuntimeError: If one of them failed, which prints why.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free.getsockname()[1]))
    forked = multiprocessing.get_context("fork")
    processes = [forked.Process(target=_run, args=(run, rank)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"exit codes {[process.exitcode for process in processes]}")


def _run(run: Callable[[int], None], rank: int) -> None:
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    os.environ.pop("PL_GLOBAL_SEED", None)
    run(rank)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def trained(case: Case, where: Path, seed: int, ckpt_path: str | None = None) -> list[dict[str, Any]]:
    """What each rank did in a training."""
    where.mkdir()
    in_processes(case.ranks, lambda rank: train(case, where, rank, seed, ckpt_path))
    return [json.loads((where / f"rank_{rank}.json").read_text()) for rank in range(case.ranks)]


def difference(mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    """In what a resumed rank differs from the run without a stop; ``""`` if in nothing."""
    expected = theirs["record"][len(theirs["record"]) - len(mine["record"]) :]
    for ours, their in zip(mine["record"], expected, strict=True):
        if ours != their:
            return f"{ours} and not {their}"
    return ", ".join(name for name in mine if name != "record" and mine[name] != theirs[name])


def without_sums() -> None:
    """Switch off that the order of the sums is restored, in this process and in those forked from it."""
    ddp.sort = lambda model, order: order
    ddp.make_with = lambda trainer, order: None  # type: ignore[assignment]


def main(where: Path, case: Case) -> None:
    straight = trained(replace(case, dies=0), where / "straight", 1)
    if case.dies:
        with contextlib.suppress(RuntimeError):
            trained(case, where / "dying", 1)
        found = latest(where / "dying")
        assert found is not None
        compare(where, replace(case, dies=0), straight, [Path(found)])
        return
    files = sorted(path for path in (where / "straight").glob("*.ckpt") if not path.is_symlink())
    compare(where, case, straight, [path for path in files if not case.files or path.name in case.files])
    without_sums()
    compare(where, case, straight, [path for path in files if path.name in case.twins], twin=True)


def compare(where: Path, case: Case, straight: list[dict[str, Any]], files: list[Path], *, twin: bool = False) -> None:
    for path in files:
        resumed = trained(case, where / f"{path.stem}_{twin}", 77, str(path))
        found = [difference(mine, theirs) for mine, theirs in zip(resumed, straight, strict=True)]
        line = {"file": path.name, "twin": twin, "verdict": read_info(path).exactness}
        print(json.dumps({**line, "differences": [it for it in found if it]}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Case(**json.loads(sys.argv[2])))
