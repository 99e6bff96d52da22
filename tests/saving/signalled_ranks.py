"""Trains in two gloo processes that get signals, resumes in two more, and prints what came of it.

Arguments: an empty directory, and a list of ``Case`` in JSON. The processes are forked from one that has imported all.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from nets import Net, load, loader
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from checkpointable import latest
from checkpointable.catalog.info import read_info
from checkpointable.lightning_internals.signals import Stop
from checkpointable.saving.session import Session


@dataclass(frozen=True)
class Case:
    """Which signal reaches which ranks, where.

    Attributes:
        number: The signal.
        hook: Rank ``sender`` sends it from this hook of a callback, the ``at``-th time that it runs, counted from 0.
        receivers: The ranks that get it.
        windows: Batches in an accumulation window.
        twin: Whether the ranks stop also inside a window.
        longer: The rank that has more batches in each validation than the other; ``None``: as many.
        waits: Whether the sender goes on only once the other rank has told of the signal, in a validation.
        parted: Whether the model lies in parts on the ranks, and is saved in shards.
        slurm: Whether they are tasks of a SLURM job. What its ``scontrol`` gets is in the file ``commands``.
    """

    name: str
    number: int
    hook: str
    at: int
    sender: int = 1
    receivers: tuple[int, ...] = (0,)
    windows: int = 1
    twin: bool = False
    slurm: bool = False
    parted: bool = False
    longer: int | None = None
    waits: bool = False
    options: dict[str, Any] = field(default_factory=dict)


class Sender(L.Callback):
    """Sends the signal."""

    def __init__(self, case: Case, where: Path) -> None:
        self.case, self.where, self.calls = case, where, 0
        setattr(self, case.hook, self.count)

    def count(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        stop: Any = trainer.lightning_module._checkpointing.validation.stop
        if self.calls == self.case.at:
            for rank in self.case.receivers:
                os.kill(int((self.where / f"pid_{rank}").read_text()), self.case.number)
            while self.case.waits and not stop.look(Stop.NONE):
                time.sleep(0.01)
        self.calls += 1


class Uneven(torch.utils.data.IterableDataset):
    """Two batches, or six on the rank ``longer``."""

    def __init__(self, longer: int) -> None:
        self.longer = longer

    def __iter__(self) -> Any:
        return iter(loader(6 if torch.distributed.get_rank() == self.longer else 2).dataset)


class Recorded(Net):
    """Notes every batch of this rank."""

    def __init__(self, **options: Any) -> None:
        super().__init__(learning_rate=0.1, **options)
        self.seen: list[Any] = []

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            fully_shard(self.layer, mesh=self.device_mesh["data_parallel"])

    def compute_loss(self, batch: Any, batch_idx: int) -> Any:
        inputs, _ = batch
        kind = self.trainer.state.stage.value
        loss = super().compute_loss(batch, batch_idx)
        self.seen.append([kind, self.current_epoch, batch_idx, float(inputs.sum()).hex(), float(loss.detach()).hex()])
        return loss


def train(case: Case, where: Path, rank: int, *, sends: bool) -> None:
    """Train on one rank, from the newest file if there is one."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    (where / f"pid_{rank}").write_text(str(os.getpid()))
    if case.twin:
        Session.may_stop = property(lambda session: session.progress.is_consistent)  # type: ignore[method-assign]
    torch.manual_seed(7)
    files = where / "files"
    net = Recorded(dirpath=files, save_top_k=0, **case.options)
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy=strategy(case), max_epochs=2, logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, accumulate_grad_batches=case.windows,
        default_root_dir=where, callbacks=[Sender(case, where)] if sends and rank == case.sender else [],
    )  # fmt: skip
    attempt = len(list(where.glob(f"seen_{rank}_*")))
    newest = latest(files) if files.exists() and not case.slurm else None
    try:
        validation = loader(4) if case.longer is None else DataLoader(Uneven(case.longer), batch_size=4)
        trainer.fit(net, loader(12, shuffle=True), validation, ckpt_path=newest)
    finally:
        seen = {"seen": net.seen, "weights": [float(it).hex() for it in mine(net.layer.weight).flatten()]}
        (where / f"seen_{rank}_{attempt}").write_text(json.dumps(seen))


def strategy(case: Case) -> Any:
    return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1) if case.parted else "ddp"


def mine(weight: Any) -> torch.Tensor:
    """What this rank has of it."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def ranks(case: Case, where: Path, *, sends: bool) -> list[int | None]:
    """Train on both, and return their exit statuses."""
    where.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free.getsockname()[1]))
    forked = multiprocessing.get_context("fork")
    processes = [forked.Process(target=_run, args=(case, where, rank, sends)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _run(case: Case, where: Path, rank: int, sends: bool) -> None:
    if case.slurm:
        _be_a_task(where, rank, restarts=0 if sends else 1)
    else:
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    train(case, where, rank, sends=sends)


def _be_a_task(where: Path, rank: int, *, restarts: int) -> None:
    task = {
        "JOB_ID": 77,
        "JOB_NAME": "train",
        "NTASKS": 2,
        "NTASKS_PER_NODE": 2,
        "PROCID": rank,
        "LOCALID": rank,
        "NODEID": 0,
    }
    os.environ.update({f"SLURM_{name}": str(value) for name, value in task.items()})
    os.environ.update(SLURM_RESTART_COUNT=str(restarts), PATH=f"{where}{os.pathsep}{os.environ['PATH']}")
    if rank == 0:
        (where / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {where}/commands\n')
        (where / "scontrol").chmod(0o755)


def trained(where: Path, rank: int, *, cut: bool = False) -> tuple[list[Any], Any]:
    """The batches of a rank in all its attempts, without a validation that was ``cut`` short, and its last weights."""
    first, *others = [json.loads(path.read_text()) for path in sorted(where.glob(f"seen_{rank}_*"))]
    while cut and first["seen"][-1][0] == "validate":
        first["seen"].pop()
    attempts = [first, *others]
    return [seen for attempt in attempts for seen in attempt["seen"]], attempts[-1]["weights"]


def rest(path: Path) -> dict[str, Any]:
    """The checkpoint, or of one in shards what is not in them."""
    return load(path / "meta.pt" if path.is_dir() else path)


def run(case: Case, root: Path) -> dict[str, Any]:
    """What came of one case."""
    straight = root / f"straight_{case.windows}_{case.longer}_{case.parted}"
    if not straight.exists():
        ranks(case, straight, sends=False)
    where = root / case.name
    ended = ranks(case, where, sends=True)
    saved = sorted(path.name for path in (where / "files").glob("*.ckpt") if not path.is_symlink())
    kinds = [read_info(where / "files" / name).kind for name in saved]
    cut = any(rest(where / "files" / name)["checkpointable"]["before_validation"] for name in saved)
    resumed = ranks(case, where, sends=False)
    same = [trained(straight, rank) == trained(where, rank, cut=cut) for rank in range(2)]
    found = {"ended": ended, "cut": cut, "saved": saved, "kinds": kinds, "resumed": resumed, "same": same}
    commands = where / "commands"
    return {"name": case.name, **found, "commands": commands.read_text() if commands.exists() else ""}


if __name__ == "__main__":
    for given in json.loads(sys.argv[2]):
        print(json.dumps(run(Case(**given), Path(sys.argv[1]))), flush=True)
