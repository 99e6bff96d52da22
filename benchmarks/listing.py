"""How long does it take to list a directory of many checkpoints, on this disk and on a slow store?

The store is a stub: a file system in memory that answers each request after a pause, and any number of requests at a
time. So the figures show what this library waits for, and not the bandwidth of a network.

    python benchmarks/listing.py                                  # 1,000 files; 10 ms for each answer of the store
"""

import threading
import time
from pathlib import Path

import fsspec
import torch
from _common import machine, parser, spread, table, turns, workspace
from fsspec.implementations.memory import MemoryFileSystem

from checkpointable import Checkpoints
from checkpointable.catalog.info import FileMetadata, Score
from checkpointable.policy.lineage import Lineage
from checkpointable.storage.staging.snapshot import Snapshot


class SlowStore(MemoryFileSystem):
    """Answers each request after a pause, and counts the requests."""

    protocol = "slow"
    store = {}
    pseudo_dirs = [""]
    pause_seconds = 0.0
    requests = 0
    lock = threading.Lock()

    def _answer(self):
        with self.lock:
            type(self).requests += 1
        time.sleep(self.pause_seconds)

    def find(self, *args, **kwargs):
        self._answer()
        return super().find(*args, **kwargs)

    def info(self, *args, **kwargs):
        self._answer()
        return super().info(*args, **kwargs)

    def cat_file(self, *args, **kwargs):
        self._answer()
        return super().cat_file(*args, **kwargs)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("slow://", "memory://"))


def file_of(number):
    """The bytes of a checkpoint with the metadata of a real run."""
    layers = {f"layer_{layer}.weight": torch.zeros(16) for layer in range(50)}
    metadata = FileMetadata(
        kind="best", reasons=("best", "interval"), epoch=number // 100, batch=number % 100, step=number, batches=number,
        metrics={f"metric_{name}": number / 7 for name in range(8)}, run_id="run", resumed_from=None, exactness="exact",
        weights_only=False, lineage=Lineage.begin(), score=Score(monitor="val_loss", mode="min", value=1 / number),
    )  # fmt: skip
    return b"".join(Snapshot({"state_dict": layers}, metadata.to_dict()).pieces())


def main():
    known = parser(__doc__, params=[], rounds=5)
    known.add_argument("--files", type=int, default=1000, help="number of checkpoints")
    known.add_argument("--pause", type=float, default=0.01, help="seconds until the store answers")
    arguments = known.parse_args()
    fsspec.register_implementation("slow", SlowStore)
    with workspace(arguments.directory) as directory:
        print(machine(directory))
        for number in range(1, arguments.files + 1):
            content = file_of(number)
            (Path(directory) / f"{number}.ckpt").write_bytes(content)
            fsspec.filesystem("slow").pipe_file(f"slow://runs/{number}.ckpt", content)
        SlowStore.pause_seconds = arguments.pause
        places = {"local": directory, f"a store that takes {arguments.pause * 1e3:g} ms": "slow://runs"}
        seconds = {name: [] for name in places}
        for _, name in turns(places, arguments.rounds):
            SlowStore.requests, began = 0, time.perf_counter()
            assert len(Checkpoints(places[name])) == arguments.files
            seconds[name].append(time.perf_counter() - began)
            if name != "local":
                requests = SlowStore.requests
        rows = [[name, f"{arguments.files}", spread(found, 2)] for name, found in seconds.items()]
        table(("directory", "files", "seconds"), rows)
        print(f"\nrequests to the store: {requests}")


if __name__ == "__main__":
    main()
