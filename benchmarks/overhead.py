"""What the mixin adds to every batch when no save is due, in microseconds, beside what Lightning itself takes.

Three modules that differ only in their checkpointing take turns in one process: Lightning, Lightning without its
default ``ModelCheckpoint``, and the mixin. They have one parameter and no real work, so that the difference shows. A
batch lasts from one ``training_step`` to the next, and the time of a fit is the median of its batches. So the set-up of
a fit is not in it, and other work of the machine hardly is.
"""

import itertools
import logging
import statistics
import tempfile
import time
import warnings

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from checkpointable import CheckpointingMixin

ROUNDS, BATCHES = 45, 150
NOTHING_DUE = {"save_interval": 10**9, "save_top_k": 0, "monitor": None, "save_last": False}
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


class Bare(L.LightningModule):
    def __init__(self, **options):
        super().__init__(**options)
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.times = []

    def training_step(self, batch, batch_idx):
        self.times.append(time.perf_counter())
        return self.weight * 1.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Mixed(CheckpointingMixin, Bare):
    def __init__(self):
        super().__init__(**NOTHING_DUE)


CONTENDERS = {
    "Lightning, default callback": (Bare, True),
    "Lightning, enable_checkpointing=False": (Bare, False),
    "CheckpointingMixin, nothing due": (Mixed, True),
}


def microseconds_per_batch(module_class, enable_checkpointing):
    module = module_class()
    with tempfile.TemporaryDirectory() as directory:
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            default_root_dir=directory,
            enable_checkpointing=enable_checkpointing,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(TensorDataset(torch.zeros(BATCHES, 1)), batch_size=1))
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(module.times)) * 1e6


def main():
    torch.set_num_threads(1)
    names = list(CONTENDERS)
    taken = {name: [] for name in names}
    for round_number in range(ROUNDS + 1):  # the first warms up
        for name in names[round_number % 3 :] + names[: round_number % 3]:
            microseconds = microseconds_per_batch(*CONTENDERS[name])
            if round_number > 0:
                taken[name].append(microseconds)

    print(f"{ROUNDS} rounds of {BATCHES} batches each; torch {torch.__version__}, lightning {L.__version__}\n")
    print(f"{'us per batch':38}  median  interquartile range")
    for name, values in taken.items():
        first, median, third = statistics.quantiles(values, n=4)
        print(f"{name:38}  {median:6.1f}  {first:.1f} to {third:.1f}")

    print()
    for other in names[:2]:
        pairs = zip(taken[names[2]], taken[other], strict=True)
        first, median, third = statistics.quantiles([ours - theirs for ours, theirs in pairs], n=4)
        percent = 100 * median / statistics.median(taken[other])
        print(f"the mixin adds {median:+.1f} us ({first:+.1f} to {third:+.1f}), {percent:+.1f} %, to: {other}")


if __name__ == "__main__":
    main()
