"""How long a save in shards holds the training, beside Lightning's own save of the same state.

python benchmarks/shards.py
python benchmarks/shards.py --params 10M 30M --processes 2

The processes train with FSDP2 and gloo on this machine. In one fit, both kinds of save take turns: ours, which copies
the shards and lets ``torch.distributed.checkpoint`` write them in the background, and ``trainer.save_checkpoint``,
which lets it write them in the training thread. Timed is the training thread of rank 0.
"""

import json
import multiprocessing
import os
import shutil
import socket
import time
import warnings
from pathlib import Path

import lightning as L
import torch
from _common import machine, parser, size, spread, table, targets, workspace
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, TensorDataset

from checkpointable import CheckpointingModule

EVERY = 8  # batches between two saves, in which the background is done
WIDTH = 1024


class Net(CheckpointingModule):
    def __init__(self, params, **options):
        super().__init__(**options)
        layers = max(params // (WIDTH * WIDTH), 1)
        self.layers = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(layers)))
        self.held, self.theirs, self.blocked = [], [], []

    def configure_model(self):
        for layer in self.layers:
            fully_shard(layer, mesh=self.device_mesh["data_parallel"])

    def compute_loss(self, batch):
        return self.layers(batch[0]).square().mean()


class Turns(L.Callback):
    """Saves as Lightning does in the middle between two saves of ours, once nothing is being written."""

    def on_train_batch_end(self, trainer, module, *_):
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.completed + 1
        session = module._checkpointing
        if batches % EVERY == 1 and batches > EVERY:
            module.held.append(session.saver.blocked_seconds)
        if batches % EVERY == EVERY // 2 and batches > EVERY:
            session.saver.wait_for_file()
            torch.distributed.barrier()
            began = time.monotonic()
            trainer.save_checkpoint(f"{trainer.default_root_dir}/theirs.ckpt")
            module.theirs.append(time.monotonic() - began)
            if trainer.is_global_zero:
                shutil.rmtree(f"{trainer.default_root_dir}/theirs.ckpt")


def train(where, params, rounds, processes, rank, port):
    """Train on one rank; rank 0 writes what it has timed."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    module = Net(params, dirpath=where / "ours", save_interval=EVERY, save_top_k=0)
    batches = EVERY * (rounds + 2)  # the first save finds its memory
    L.Trainer(
        accelerator="cpu", devices=processes, max_epochs=1, logger=False, default_root_dir=where,
        strategy=ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1),
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Turns()],
    ).fit(module, DataLoader(TensorDataset(torch.randn(batches * processes, WIDTH)), batch_size=1))  # fmt: skip
    if rank == 0:
        (where / "timed").write_text(json.dumps([module.held[1:], module.theirs[1:]]))


def timed(where, params, rounds, processes):
    """The seconds for which each of our saves, and each of Lightning's, held rank 0."""
    where.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    given = (where, params, rounds, processes)
    running = [context.Process(target=train, args=(*given, rank, port)) for rank in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    return json.loads((where / "timed").read_text())


def main():
    known = parser(__doc__, params=[10_000_000, 30_000_000], rounds=5)
    known.add_argument("--processes", type=int, default=2, help="number of processes")
    arguments = known.parse_args()
    rows, aims = [], []
    with workspace(arguments.directory) as directory:
        print(f"{machine(directory)}\n")
        for params in arguments.params:
            ours, theirs = timed(Path(directory) / f"{params}", params, arguments.rounds, arguments.processes)
            shown = (spread([seconds * 1e3 for seconds in each]) for each in (ours, theirs))
            found = [mine / other for mine, other in zip(ours, theirs, strict=True)]
            rows.append([size(params), *shown, spread(found, 2)])
            aims.append((f"a save holds the training, of {size(params)}", 0.3, found))
    table(("parameters", "ours holds, ms", "Lightning's, ms", "ratio"), rows)
    targets(aims)


if __name__ == "__main__":
    main()
