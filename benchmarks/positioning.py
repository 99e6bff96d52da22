"""What it costs to return to a position in the data, and to seed worker processes for every batch.

Positioning: a shuffled loader of ten million samples moves to the middle of its epoch, compared with a plain loop over
as many batches of indices. Seeding: a loader with two workers delivers images as it is and made resumable; the two take
turns.
"""

import itertools
import statistics
import time
from dataclasses import replace

import torch
from torch.utils.data import DataLoader, Dataset

from checkpointable.resume.loader_position import LoaderPosition

SAMPLES, BATCH = 10_000_000, 256
IMAGES, IMAGE_BATCH, WORKERS = 3_200, 32, 2
POSITIONING_ROUNDS, IMAGE_ROUNDS = 7, 30


class Numbers(Dataset):
    """Ten million samples: their indices."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return index


class Images(Dataset):
    """Images of 3 x 64 x 64 with a random brightness. They are less work for a worker than any real image."""

    def __init__(self):
        self.images = torch.rand(64, 3, 64, 64)

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        return self.images[index % 64] * torch.rand(())


def seconds_of_plain_indices(batches):
    loader = DataLoader(Numbers(), batch_size=BATCH, shuffle=True)
    start = time.perf_counter()
    for _ in itertools.islice(iter(loader.batch_sampler), batches + 1):
        pass
    return time.perf_counter() - start


def seconds_of_positioning(batches):
    began = LoaderPosition(DataLoader(Numbers(), batch_size=BATCH, shuffle=True))
    next(iter(began))
    state = replace(began.state(consumed_only=True), delivered=batches)
    resumed = LoaderPosition(DataLoader(Numbers(), batch_size=BATCH, shuffle=True))
    start = time.perf_counter()
    resumed.resume_at(state, 0)
    first = next(iter(resumed))
    taken = time.perf_counter() - start
    assert len(first) == BATCH
    return taken


def images_per_second(wrap):
    loader = wrap(DataLoader(Images(), batch_size=IMAGE_BATCH, shuffle=True, num_workers=WORKERS))
    iterator = iter(loader)
    for _ in range(2 * WORKERS):  # the start of the processes is not measured
        next(iterator)
    start = time.perf_counter()
    images = sum(len(batch) for batch in iterator)
    return images / (time.perf_counter() - start)


def row(name, values, digits):
    first, median, third = statistics.quantiles(values, n=4)
    print(f"{name:42}  {median:8.{digits}f}  {first:.{digits}f} to {third:.{digits}f}")


def main():
    torch.set_num_threads(1)
    middle = SAMPLES // BATCH // 2
    plain, ours = [], []
    for _ in range(POSITIONING_ROUNDS):
        plain.append(seconds_of_plain_indices(middle))
        ours.append(seconds_of_positioning(middle))
    print(f"torch {torch.__version__}\n")
    print(f"seconds to batch {middle:,} of {SAMPLES // BATCH:,}{'':9}    median  interquartile range")
    row("plain loop over the batch sampler", plain, 2)
    row("our return, with the first batch", ours, 2)

    without, within = [], []
    contenders = [(lambda loader: loader, without), (LoaderPosition, within)]
    for round_number in range(IMAGE_ROUNDS + 1):  # the first warms up
        for wrap, values in contenders if round_number % 2 else contenders[::-1]:
            rate = images_per_second(wrap)
            if round_number > 0:
                values.append(rate)
    print(f"\nimages per second, {WORKERS} workers{'':14}    median  interquartile range")
    row("DataLoader as it is", without, 0)
    row("made resumable, seeded per batch", within, 0)
    shares = [100 * (mine / theirs - 1) for mine, theirs in zip(within, without, strict=True)]
    first, median, third = statistics.quantiles(shares, n=4)
    print(f"\nseeding changes the rate by {median:+.1f} % ({first:+.1f} to {third:+.1f})")


if __name__ == "__main__":
    main()
