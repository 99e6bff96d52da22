"""What a save costs more with the number of processes: collectives, bytes that rank 0 gets and sends, and of the file.

python benchmarks/scale.py
python benchmarks/scale.py --processes 1 2 4 8 16

They train with gloo on this machine. Counted is what differs between a fit that saves and one that does not, divided by
the number of saves. Bytes are those of what is handed to a collective, pickled.
"""

import json
import multiprocessing
import os
import pickle
import socket
import warnings
from pathlib import Path

import lightning as L
import torch
from _common import parser, table, workspace
from torch import distributed
from torch.utils.data import DataLoader, TensorDataset

from checkpointable import CheckpointingModule

BATCHES, INTERVAL = 24, 6
OBJECTS = ("all_gather_object", "broadcast_object_list", "gather_object")
OTHERS = ("all_gather", "all_reduce", "barrier", "broadcast", "monitored_barrier", "reduce")


class Net(CheckpointingModule):
    def __init__(self, **options):
        super().__init__(**options)
        self.layer = torch.nn.Linear(64, 10)

    def compute_loss(self, batch):
        return self.layer(batch[0]).square().mean()


class Counter:
    """Counts the collectives of this process, and what rank 0 gets and sends in those of objects."""

    def __init__(self):
        self.calls = self.received = self.sent = 0
        for name in OBJECTS + OTHERS:
            setattr(distributed, name, self._counting(name, getattr(distributed, name)))

    def _counting(self, name, function):
        def counting(*args, **kwargs):
            result = function(*args, **kwargs)
            self.calls += 1
            if distributed.get_rank() == 0 and name in OBJECTS:
                self._measure(name, *args)
            return result

        return counting

    def _measure(self, name, first, second=None, *_):
        others = distributed.get_world_size() - 1
        if name == "broadcast_object_list":
            self.sent += others * len(pickle.dumps(first))
        else:
            gathered = second if name == "gather_object" else first
            self.received += sum(len(pickle.dumps(it)) for it in gathered[1:])
            self.sent += others * len(pickle.dumps(gathered)) if name == "all_gather_object" else 0


def train(where, processes, rank, port, *, saves):
    """Train on one rank; rank 0 writes what it has counted."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    data = DataLoader(TensorDataset(torch.randn(4 * BATCHES * processes, 64)), batch_size=4, shuffle=True)
    options = {"save_interval": INTERVAL if saves else None, "save_top_k": 0, "save_last": False, "save_last_k": -1}
    counter = Counter() if processes > 1 else None
    L.Trainer(
        accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", max_epochs=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=where,
    ).fit(Net(dirpath=where / "files", **options), data)  # fmt: skip
    if rank == 0:
        found = [counter.calls, counter.received, counter.sent] if counter else [0, 0, 0]
        sizes = [path.stat().st_size for path in (where / "files").glob("*.ckpt") if not path.is_symlink()]
        (where / "counted").write_text(json.dumps([found, sizes]))


def counted(where, processes, *, saves):
    """What rank 0 has counted in one training, and the sizes of its files."""
    where.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    running = [
        context.Process(target=train, args=(where, processes, rank, port), kwargs={"saves": saves})
        for rank in range(processes)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join()
    return json.loads((where / "counted").read_text())


def main():
    known = parser(__doc__, params=[], rounds=1)
    known.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of processes")
    arguments = known.parse_args()
    rows, alone = [], None
    with workspace(arguments.directory) as directory:
        for processes in arguments.processes:
            found, sizes = counted(Path(directory) / f"{processes}", processes, saves=True)
            without, _ = counted(Path(directory) / f"{processes} without", processes, saves=False)
            calls, received, sent = ((a - b) / len(sizes) for a, b in zip(found, without, strict=True))
            size = max(sizes) / 1e3
            alone = size if alone is None else alone
            more = (size - alone) / (processes - 1) if processes > 1 else 0.0
            rows.append([f"{processes}", f"{calls:.1f}", f"{received / 1e3:.1f}", f"{sent / 1e3:.1f}", f"{more:.1f}"])
    table(("processes", "collectives", "kB to rank 0", "kB from rank 0", "kB in the file for each further one"), rows)


if __name__ == "__main__":
    main()
