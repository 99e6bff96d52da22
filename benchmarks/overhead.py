"""What the mixin adds to every batch when no save is due, in microseconds, beside what Lightning itself takes.

Modules that differ only in their checkpointing take turns in one process: Lightning, Lightning without its default
``ModelCheckpoint``, and the mixin. They have one parameter and no real work, so that the difference shows. A batch
lasts from one ``training_step`` to the next, and the time of a fit is the median of its batches. So the set-up of a fit
is not in it, and other work of the machine hardly is.

Every kind of loader is measured by itself, since what has to be kept of it differs: a sampler of the user may draw from
the global generators at any batch, and of a loader without a length Lightning fetches one batch ahead.
"""

import argparse
import itertools
import logging
import statistics
import tempfile
import time
import warnings

import lightning as L
import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset

from checkpointable import CheckpointingMixin

BATCHES = 150
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


PEER, CONTROL, OURS = (
    "Lightning, default callback",
    "Lightning, enable_checkpointing=False",
    "CheckpointingMixin, nothing due",
)
CONTENDERS = {PEER: (Bare, True), CONTROL: (Bare, False), OURS: (Mixed, True)}


class Own(Sampler):
    """A sampler as users write them: one number drawn for each sample."""

    def __iter__(self):
        return (int(torch.randint(BATCHES, ())) for _ in range(BATCHES))

    def __len__(self):
        return BATCHES


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.zeros(BATCHES, 1))


def rows():
    return TensorDataset(torch.zeros(BATCHES, 1))


def stateful():
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(rows(), batch_size=1)


LOADERS = {  # how each is made, and the most that the mixin should add to the default callback
    "default": (lambda: DataLoader(rows(), batch_size=1), 5),
    "own sampler": (lambda: DataLoader(rows(), batch_size=1, sampler=Own()), 10),
    "iterable": (lambda: DataLoader(Stream(), batch_size=1), 10),
    "two workers": (lambda: DataLoader(rows(), batch_size=1, num_workers=2), 10),
    "stateful": (stateful, 10),
}


def microseconds_per_batch(module_class, enable_checkpointing, make_loader=LOADERS["default"][0]):
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
        trainer.fit(module, make_loader())
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(module.times)) * 1e6


def compare(make_loader, rounds):
    """Microseconds of each contender in each round."""
    names = list(CONTENDERS)
    taken = {name: [] for name in names}
    for round_number in range(rounds + 1):  # the first warms up
        for name in names[round_number % 3 :] + names[: round_number % 3]:
            microseconds = microseconds_per_batch(*CONTENDERS[name], make_loader)
            if round_number > 0:
                taken[name].append(microseconds)
    return taken


def quartiles(values):
    first, median, third = statistics.quantiles(values, n=4)
    return f"{median:,.1f} ({first:,.1f} to {third:,.1f})"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--loaders", nargs="+", choices=LOADERS, default=list(LOADERS))
    arguments.add_argument("--rounds", type=int, default=45)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"{given.rounds} rounds of {BATCHES} batches each; torch {torch.__version__}, lightning {L.__version__}")
    print("Microseconds per batch: median (interquartile range)\n")
    print(f"| loader | {PEER} | {CONTROL} | {OURS} | added to the default callback | at most |")
    print(f"|---|{'---:|' * 5}")
    for name in given.loaders:
        make_loader, most = LOADERS[name]
        try:
            make_loader()
        except ImportError:
            print(f"| {name} | torchdata is not installed ||||| ")
            continue
        taken = compare(make_loader, given.rounds)
        added = [ours - theirs for ours, theirs in zip(taken[OURS], taken[PEER], strict=True)]
        print(f"| {name} | {' | '.join(map(quartiles, [*taken.values(), added]))} | {most} |", flush=True)


if __name__ == "__main__":
    main()
