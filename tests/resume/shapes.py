"""The shapes that loaders have in public code, each as small as it can be."""

from __future__ import annotations

import itertools
import queue
from abc import abstractmethod

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler
from torchdata.stateful_dataloader import StatefulDataLoader

SIZE = 12


class Numbers(Dataset):
    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return torch.full((2,), float(index))


class Stream(IterableDataset):
    def __iter__(self):
        return (torch.full((2,), float(number)) for number in range(SIZE))


class Seeded(Sampler):
    """Shuffles its indices in place, as chemprop's does."""

    def __init__(self):
        self.indices, self.generator = np.arange(SIZE), np.random.default_rng(17)

    def __len__(self):
        return SIZE

    def __iter__(self):
        self.generator.shuffle(self.indices)
        return iter(self.indices.tolist())


class Iterating(Sampler):
    """Keeps an iterator over its passes."""

    def __init__(self):
        self.kept = itertools.cycle(range(SIZE))

    def __len__(self):
        return 10

    def __iter__(self):
        return itertools.islice(self.kept, 10)


class InPairs(Sampler):
    """A batch sampler that counts its passes."""

    def __init__(self):
        self.passes = 0

    def __len__(self):
        return SIZE // 2

    def __iter__(self):
        self.passes += 1
        return iter([[n, (n + self.passes) % SIZE] for n in range(0, SIZE, 2)])


class PassingOn(DataLoader):
    """As MONAI's ThreadDataLoader and many wrappers."""

    def __iter__(self):
        yield from super().__iter__()


class Repeating:
    def __init__(self, sampler):
        self.sampler = sampler

    def __iter__(self):
        while True:
            yield from iter(self.sampler)


class MultiEpochs(DataLoader):
    """Keeps one iterator over all epochs, as timm's MultiEpochsDataLoader and the InfiniteDataLoader of others."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        object.__setattr__(self, "batch_sampler", Repeating(self.batch_sampler))
        self.iterator = super().__iter__()

    def __len__(self):
        return len(self.batch_sampler.sampler)

    def __iter__(self):
        for _ in range(len(self)):
            yield next(self.iterator)


class Transformed:
    def __init__(self, iterator):
        self.iterator = iterator

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.iterator) + 1


class Graphs(DataLoader):
    """Overrides how its iterator is made, as PyTorch Geometric's loaders do."""

    def _get_iterator(self):
        return Transformed(super()._get_iterator())


class Ahead(DataLoader):
    """Reads one batch ahead, as prefetchers to a GPU do."""

    def __iter__(self):
        return itertools.chain.from_iterable(self._buffered(super().__iter__()))

    def _buffered(self, iterator):
        buffer = [next(iterator)]
        for batch in iterator:
            buffer.append(batch)
            yield [buffer.pop(0)]
        yield buffer


class OwnPlace(DataLoader):
    """Keeps its own place, and tells it also before it reads on."""

    place = start = 0

    def __iter__(self):
        self.place, self.start = self.start, 0
        return self._after(self.place, super().__iter__())

    def _after(self, place, batches):
        for number, batch in enumerate(batches):
            if number >= place:
                self.place = number + 1
                yield batch

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = self.start = state["place"]


class OwnSkip(DataLoader):
    """Keeps its own place, and tells it only while it reads."""

    seen = skip = 0

    def __iter__(self):
        start, self.skip, self.seen = self.skip, 0, 0
        for number, batch in enumerate(super().__iter__()):
            self.seen = number + 1
            if number >= start:
                yield batch

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.skip = state["seen"]


class Unwritten(DataLoader):
    def state_dict(self):
        raise NotImplementedError

    def load_state_dict(self, state):
        raise NotImplementedError


class Abstract(DataLoader):
    @abstractmethod
    def state_dict(self):
        """A subclass writes it."""

    @abstractmethod
    def load_state_dict(self, state):
        """A subclass writes it."""


class Going(IterableDataset):
    """Its state is where it is, also from one epoch to the next."""

    def __init__(self):
        self.at = 0

    def __iter__(self):
        while self.at < SIZE:
            self.at += 1
            yield torch.full((2,), float(self.at))
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class FromStart(IterableDataset):
    """Takes a state for the start of every later pass, as Hugging Face's IterableDataset does."""

    def __init__(self):
        self.start, self.state = None, {"at": 0}

    def __iter__(self):
        self.state = dict(self.start or {"at": 0})
        for number in range(self.state["at"], SIZE):
            self.state["at"] = number + 1
            yield torch.full((2,), float(number))

    def state_dict(self):
        return dict(self.state)

    def load_state_dict(self, state):
        self.start = state


class Endless:
    """Goes on in each epoch where the last one ended, as gluonts' IterableSlice does."""

    def __init__(self):
        self.numbers = itertools.count()

    def __iter__(self):
        for number in itertools.islice(self.numbers, 4):
            yield torch.full((1, 2), float(number))


class FromQueue(IterableDataset):
    """Reads what comes in once, as from a socket."""

    def __init__(self, first=0):
        self.waiting = queue.SimpleQueue()
        for number in range(first, 36):
            self.waiting.put(number)

    def __iter__(self):
        for _ in range(SIZE):
            yield torch.full((2,), float(self.waiting.get_nowait()))


class Wrapper:
    """Is no DataLoader, and passes on the batches of one."""

    def __init__(self):
        self.loader = DataLoader(Numbers(), batch_size=2, shuffle=True)

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        return iter(self.loader)


def of(kind, **options):
    return lambda: kind(Numbers(), batch_size=2, **options)


def stateful(data, **options):
    return lambda: StatefulDataLoader(data(), batch_size=2, **options)


# How each is made; whether it can resume exactly inside an epoch, and from the end of one.
SHAPES = {
    "plain": (of(DataLoader, shuffle=True), True, True),
    "plain, workers": (of(DataLoader, shuffle=True, num_workers=1), True, True),
    "own sampler": (lambda: DataLoader(Numbers(), 2, sampler=Seeded()), True, True),
    "sampler with an iterator": (lambda: DataLoader(Numbers(), 2, sampler=Iterating()), False, False),
    "own batch sampler": (lambda: DataLoader(Numbers(), batch_sampler=InPairs()), True, True),
    "__iter__ is a generator": (of(PassingOn, shuffle=True), False, False),
    "iterator kept over epochs": (of(MultiEpochs, shuffle=True), False, False),
    "_get_iterator": (of(Graphs, shuffle=True), True, True),
    "reads ahead": (of(Ahead, shuffle=True), False, True),
    "own state": (of(OwnPlace, shuffle=True), True, True),
    "own state, told while reading": (of(OwnSkip), False, False),
    "torchdata, index": (stateful(Numbers, shuffle=True), True, True),
    "torchdata, iterable": (stateful(Stream), False, False),
    "torchdata, data with a state": (stateful(Going), True, True),
    "torchdata, state is a start": (stateful(FromStart), False, False),
    "endless": (Endless, False, False),
    "iterable": (lambda: DataLoader(Stream(), 2), False, False),
    "wrapper": (Wrapper, False, False),
    "state_dict not written": (of(Unwritten, shuffle=True), True, True),
    "state_dict abstract": (of(Abstract, shuffle=True), True, True),
}
