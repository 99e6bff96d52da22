"""What a worker process is sent, so that the random numbers of a batch depend on the run and the batch's number only.

They depend neither on the number of workers, nor on the batches that a worker had before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import get_worker_info

from checkpointable.resume import rng
from checkpointable.resume.generator_states import seed_with
from checkpointable.resume.owned_rng import search

_of_worker: dict[int, list[Any]] = {}  # in a worker process: the generators below each object that was searched
_batch_seed: int | None = None


class SeededIndices:
    """Indices for a worker process. Unpickling gives the plain indices, and seeds the worker for this batch."""

    def __init__(self, indices: Any, seed: int) -> None:
        self.indices = indices
        self.seed = seed

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpack, (self.indices, self.seed))


class SeededCollate:
    """A loader's ``collate_fn``, for its worker processes: its own random generators are seeded for each batch, too.

    A generator that is made at its first use is seeded from a worker's second batch on. A worker notes that in memory
    that all share, because then a worker's first batch after a resume has other random numbers.
    """

    stands_for_source = True

    def __init__(self, source: Callable[[Any], Any]) -> None:
        self.source = source
        self._late = torch.zeros(1, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        self._is_first = True

    @property
    def has_late_generators(self) -> bool:
        """Whether the first batch of a worker has made random generators."""
        return bool(self._late.item())

    def __call__(self, samples: Any) -> Any:
        """One batch, made of its samples by the script's function."""
        worker = get_worker_info()
        if worker is None or _batch_seed is None:
            return self.source(samples)
        seed(self.source, rng.derive_seed(_batch_seed, -2))
        batch = self.source(samples)
        if self._is_first:
            self._is_first = False
            if _search_again(self.source) | _search_again(worker.dataset):
                self._late[0] = 1
        return batch


def seed(owner: Any, seed: int) -> None:
    """Seed the generators below an object in a worker process, each with a seed of its own."""
    if id(owner) not in _of_worker:  # a worker searches once, and once more after its first batch
        _of_worker[id(owner)] = _generators(owner)
    for number, generator in enumerate(_of_worker[id(owner)]):
        seed_with(generator, rng.derive_seed(seed, number))


def _search_again(owner: Any) -> bool:
    before, _of_worker[id(owner)] = _of_worker.get(id(owner), []), _generators(owner)
    return len(before) != len(_of_worker[id(owner)])


def _generators(owner: Any) -> list[Any]:
    found: dict[tuple[Any, ...], Any] = {}
    search(("here",), owner, found, set())
    return list(found.values())


def _unpack(indices: Any, batch_seed: int) -> Any:
    global _batch_seed
    rng.seed_worker(batch_seed)
    worker = get_worker_info()
    if worker is not None:
        _batch_seed = batch_seed
        seed(worker.dataset, batch_seed)
    return indices
