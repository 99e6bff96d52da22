"""How long a state takes to become a file that is safe on disk, compared with writing as many bytes.

Every contestant saves one state of a real training (weights, Adam, loops, and what we add) in its turn, each time to a
new name, until its bytes are on the disk. Nothing else runs. The bare writes take the bytes of ``torch.save``'s file
from memory, in pieces of 16 MB: through the page cache, and past it (``O_DIRECT``), each with one ``fsync``. One of
them also reads its bytes back past the page cache, as ours does to verify them, and compares nothing.

Ours is one call of the ``CheckpointIO``, from the call to the return: snapshot, checksums, writing, two ``fsync``, the
check of what was written, and the rename. DCP syncs by itself. ``torch.save`` and Lightning's atomic save do not: their
files are synced after the call, and that time is included, because a file that a power cut destroys was not saved.
"returned" is when their own call ended. The first round allocates and is not counted.
"""

import mmap
import os
import shutil
import statistics
import time

import _common
import _fit
import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch.plugins.io import TorchCheckpointIO

from checkpointable.lightning_internals.checkpoint_io import DurableCheckpointIO
from checkpointable.lightning_internals.tree import combined

PIECE, BLOCK = 16 << 20, 4096
DIRECT, OURS = "bare write, `O_DIRECT`", "**ours**, verified and renamed"
DIRECT_BACK = f"{DIRECT}, read back"


def state_of(params, directory):
    """What Lightning hands to a ``CheckpointIO`` in the middle of one of our trainings."""
    taken = []
    options = {"save_interval": None, "monitor": None, "save_top_k": 0, "save_last": False, "dirpath": directory}
    take = _fit.Every(2, lambda trainer, _: taken.append(trainer._checkpoint_connector.dump_checkpoint()))
    _fit.fit(_fit.Ours(params=params, **options), 3, directory, callbacks=[take], enable_checkpointing=True)
    return taken[0]


class Bytes:
    """The bytes of a file, in memory that ``O_DIRECT`` accepts."""

    def __init__(self, checkpoint, directory):
        path = os.path.join(directory, "bytes")
        torch.save(checkpoint, path)
        self.size = os.path.getsize(path)
        self.buffer = mmap.mmap(-1, -(-self.size // BLOCK) * BLOCK)
        self.buffer.madvise(mmap.MADV_HUGEPAGE)
        with open(path, "rb") as file:
            file.readinto(self.buffer)
        os.unlink(path)

    def write(self, path, flags=0):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o644)
        try:
            with memoryview(self.buffer) as view:
                for start in range(0, len(view), PIECE):
                    piece = view[start : start + PIECE]
                    while piece:
                        piece = piece[os.write(descriptor, piece) :]
            os.ftruncate(descriptor, self.size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_and_read(self, path):
        self.write(path, os.O_DIRECT)
        block = mmap.mmap(-1, PIECE)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            while os.readv(descriptor, [block]):
                pass
        finally:
            os.close(descriptor)


def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def contestants(checkpoint, content):
    """For each contestant: how it saves, and whether the file has to be synced afterwards."""
    io, lightning = combined(DurableCheckpointIO, TorchCheckpointIO)(), TorchCheckpointIO()
    return {
        DIRECT: (lambda path: content.write(path, os.O_DIRECT), False),
        DIRECT_BACK: (content.write_and_read, False),
        "bare write, page cache": (content.write, False),
        "`torch.save`": (lambda path: torch.save(checkpoint, path), True),
        "Lightning's atomic save": (lambda path: lightning.save_checkpoint(checkpoint, path), True),
        "DCP `save`": (lambda path: dcp.save(checkpoint, checkpoint_id=path, no_dist=True), False),
        OURS: (lambda path: io.save_checkpoint(checkpoint, path), False),
    }


def measure(save, to_be_synced, directory):
    """Seconds until the bytes are on the disk, seconds until the call returns, seconds of processor time."""
    path = os.path.join(directory, "state.ckpt")
    busy, start = time.process_time(), time.perf_counter()
    save(path)
    returned = time.perf_counter()
    if to_be_synced:
        sync(path)
    durable, busy = time.perf_counter(), time.process_time() - busy
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
    sync(directory)
    return durable - start, returned - start, busy


def compare(params, given, directory):
    place = os.path.join(directory, "fit")
    checkpoint = state_of(params, place)
    content = Bytes(checkpoint, directory)
    savers = contestants(checkpoint, content)
    try:
        measure(*savers[DIRECT], directory)
    except OSError as error:
        print(f"\nNo O_DIRECT here ({error.strerror}): compared with the page cache.")
        del savers[DIRECT], savers[DIRECT_BACK]
    bare = next(iter(savers))
    found = {name: [] for name in savers}
    for round_number, name in _common.turns(savers, given.rounds + 1):
        result = measure(*savers[name], directory)
        if round_number > 0:
            found[name].append(result)
    gigabytes = content.size / _common.GB
    print(
        f"\n## {_common.size(params)} parameters and Adam: {gigabytes:.3f} GB; torch threads: {torch.get_num_threads()}"
        f"\n\n{given.rounds} rounds. Median (smallest to largest)."
    )
    rows = []
    for name, results in found.items():
        durable, returned, busy = zip(*results, strict=True)
        rows.append(
            [
                name,
                _common.spread([seconds * 1e3 for seconds in durable]),
                f"{statistics.median(gigabytes / seconds for seconds in durable):.2f}",
                _common.spread(ratios(found, name, bare), 2),
                f"{statistics.median(returned) * 1e3:,.0f}",
                _common.spread([seconds / gigabytes for seconds in busy], 2),
            ]
        )
    _common.table(["", "ms to durable", "GB/s", f"/ {bare}", "returned, ms", "CPU s/GB"], rows)
    if bare == DIRECT:
        _common.targets([(f"{OURS} / {peer}", 1.15, ratios(found, OURS, peer)) for peer in (DIRECT, DIRECT_BACK)])


def ratios(found, name, peer):
    """The seconds to the disk of each round, divided by the other's of the same round."""
    return _common.ratios(*([[result[0]] for result in found[of]] for of in (name, peer)))


def main():
    arguments = _common.parser(__doc__, params=[10_000_000, 100_000_000], rounds=7)
    arguments.add_argument("--threads", type=_common.threads, default=1)
    given = arguments.parse_args()
    if given.quick:
        given.params, given.rounds = [10_000_000], 3
    torch.set_num_threads(given.threads)
    with _common.workspace(given.directory) as directory:
        print(_common.machine(directory))
        for params in given.params:
            compare(params, given, directory)


if __name__ == "__main__":
    main()
