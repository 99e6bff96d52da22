"""A signal in a validation of several ranks: they learn of it through the store of their group.

Ranks may have different numbers of batches there, so that no collective can ask. After its last batch each waits for
the others, and looks at the store meanwhile. So none is in a hook of the validation's end when another one leaves.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from datetime import timedelta

import torch
from torch.distributed.distributed_c10d import _get_default_store

from checkpointable.lightning_internals.signals import Stop

_NUMBERS = itertools.count()  # the same on all ranks: each makes one for each validation
_POLL_SECONDS = 0.005
_LEAVING_SECONDS = 10.0


class SharedStop:
    """Whether one validation shall be cut short. Each rank makes it, before that validation."""

    def __init__(self) -> None:
        self._store, self._key = _get_default_store(), f"checkpointable/stop/{next(_NUMBERS)}"
        self._rank, self._ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def look(self, noted: Stop) -> Stop:
        """Tell the others what this rank has noted, and return what one of them has told."""
        if noted:
            self._store.set(self._key, str(int(noted)))
        elif not self._store.check([self._key]):
            return Stop.NONE
        self._store.set(f"{self._key}/{self._rank}", "")
        return Stop(int(self._store.get(self._key)))

    def wait_for_all(self, noted: Callable[[], Stop]) -> Stop:
        """Wait until each rank has called this, and return ``NONE``; or until one has told of a stop. Collective."""
        arrival = torch.distributed.barrier(async_op=True)
        while not arrival.is_completed():
            stop = self.look(noted())
            if stop:
                return stop
            time.sleep(_POLL_SECONDS)
        arrival.wait()
        return Stop.NONE

    def wait_until_seen(self) -> None:
        """On rank 0, whose process has the store: wait some seconds for the others to know."""
        keys = [f"{self._key}/{rank}" for rank in range(self._ranks)]
        with contextlib.suppress(RuntimeError):  # one of them has died, or is in a batch that takes long
            self._store.wait(keys, timedelta(seconds=_LEAVING_SECONDS))
