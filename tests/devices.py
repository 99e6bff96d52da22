"""A device that is none: its copies are made on another thread, late."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence

import pytest
import torch

from checkpointable.storage.staging import copies, device_copy, snapshot
from checkpointable.storage.staging.device_copy import Piece
from checkpointable.storage.writer import Writer


class Device:
    """Takes the place of CUDA devices: all storages lie on it. Its copies are begun when something waits for them.

    What is held back on a real device is queued work; here the host does that work, so it is the host that waits.

    Attributes:
        transfers: Those that were begun, in order.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.transfers: list[Transfer] = []
        for module in (copies.device_copy, snapshot):
            patch.setattr(module, "lies_on_device", lambda storage: True)
        patch.setattr(device_copy, "begin", self.begin)
        patch.setattr(device_copy, "pin", lambda address, size, device: 0)
        patch.setattr(device_copy, "unpin", lambda address, device: None)

    def begin(self, pieces: Sequence[Piece], begun: list[device_copy.Transfer]) -> list[device_copy.Transfer]:
        if not pieces:
            return []
        self.transfers.append(Transfer(pieces, self.transfers[-1] if self.transfers else None))
        begun.append(self.transfers[-1])
        return [self.transfers[-1]]

    def let_go(self) -> None:
        """Begin all copies."""
        for transfer in self.transfers:
            transfer.begun.set()


def late_in_training(patch: pytest.MonkeyPatch) -> Device:
    """A device whose copies begin when the training waits for them, or for the file, and not before."""
    device, take = Device(patch), Writer.take
    patch.setattr(Transfer, "wait", Transfer.wait_if_in_background)
    patch.setattr(Writer, "take", lambda writer: (device.let_go(), take(writer))[1])
    return device


class Transfer:
    """Copies after those of the one before it, on a thread of its own, once anything waits for it."""

    def __init__(self, pieces: Sequence[Piece], before: Transfer | None) -> None:
        self.pieces, self.before = pieces, before
        self.is_held_back = False
        self.begun, self.made = threading.Event(), threading.Event()
        threading.Thread(target=self._copy, daemon=True).start()

    def hold_back(self) -> None:
        self.is_held_back = True
        self.wait()

    def wait(self) -> None:
        self.begun.set()
        assert self.made.wait(300)

    def wait_if_in_background(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.begun.set()
        assert self.made.wait(300)

    def _copy(self) -> None:
        assert self.begun.wait(300)
        if self.before is not None:
            self.before.wait()
        for storage, begin, end, target in self.pieces:
            ctypes.memmove(target, storage.data_ptr() + begin, end - begin)
        self.made.set()


def never_held_back(patch: pytest.MonkeyPatch) -> None:
    """For the twins."""
    patch.setattr(Transfer, "hold_back", lambda transfer: None)


def large(value: float, count: int = 3) -> list[torch.Tensor]:
    return [torch.full((100_000 + number,), value) for number in range(count)]
