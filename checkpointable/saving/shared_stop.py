"""A signal in a validation of several ranks: they learn of it through the store of their group.

Ranks may have different numbers of batches there, so that no collective can ask. After its last batch each waits at a
barrier. Only a rank that has not come there may tell the others to stop: then no rank has passed the barrier, and none
is in a hook of the validation's end. One that waits asks the others to.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch

from checkpointable.lightning_internals.signals import Stop

_NUMBERS = itertools.count()  # the same on all ranks: each makes one for each validation
_POLL_SECONDS = 0.005
_LEAVING_SECONDS = 10.0


class SharedStop:
    """Whether one validation shall be cut short. Each rank makes it, before that validation."""

    def __init__(self) -> None:
        from torch.distributed.distributed_c10d import _get_default_store  # not in each build of torch

        self._store, key = _get_default_store(), f"checkpointable/stop/{next(_NUMBERS)}"
        self._asked, self._told, self._saved = f"{key}/asked", f"{key}/told", f"{key}/saved"
        self._seen = [f"{key}/seen/{rank}" for rank in range(torch.distributed.get_world_size())]
        self._rank = torch.distributed.get_rank()

    def look(self, noted: Stop) -> Stop:
        """After a batch: tell the others what this rank has noted or was asked, and return what one has told."""
        asked = noted or self._read(self._asked)
        if asked and not self._store.check([self._told]):
            self._store.set(self._told, str(int(asked)))
        return self._see()

    def wait_for_all(self, noted: Callable[[], Stop]) -> Stop:
        """Wait until each rank has called this, and return ``NONE``; or until one has told of a stop. Collective."""
        arrival = torch.distributed.barrier(async_op=True)
        while not arrival.is_completed():
            mine, told = noted(), self._see()
            if told:
                return told
            if mine:
                self._store.set(self._asked, str(int(mine)))
            time.sleep(_POLL_SECONDS)
        arrival.wait()
        return Stop.NONE

    def wait_for_save(self, seconds: float) -> None:
        """On the other ranks: leave once rank 0 has saved. If it waits in a collective, that ends when they leave."""
        with _suppress_errors():
            self._store.wait(self._seen[:1], timedelta(seconds=_LEAVING_SECONDS))
            self._store.wait([self._saved], timedelta(seconds=seconds))

    def leave(self) -> None:
        """On rank 0, whose process has the store: it has saved. Wait some seconds for the others to know."""
        with _suppress_errors():
            self._store.set(self._saved, "")
            self._store.wait(self._seen, timedelta(seconds=_LEAVING_SECONDS))

    def _see(self) -> Stop:
        told = self._read(self._told)
        if told:
            self._store.set(self._seen[self._rank], "")
        return told

    def _read(self, key: str) -> Stop:
        return Stop(int(self._store.get(key))) if self._store.check([key]) else Stop.NONE


@contextlib.contextmanager
def _suppress_errors() -> Iterator[None]:
    """A rank has died, or is in a batch that takes long: torch raises ``DistError``, a ``RuntimeError``."""
    with contextlib.suppress(RuntimeError):
        yield
