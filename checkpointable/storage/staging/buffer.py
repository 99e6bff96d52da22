"""The memory that snapshots are copied into: allocated once, on huge pages, and reused by every save."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import threading
import warnings
from dataclasses import dataclass, field

import torch

from checkpointable._errors import CheckpointableWarning
from checkpointable.storage import memory
from checkpointable.storage.staging import device_copy
from checkpointable.storage.staging.device_copy import Transfer
from checkpointable.storage.staging.rotation import Rotation

_STEP = 1 << 21  # bytes: a state that grows a little needs no new memory


@dataclass(eq=False)
class StagingBuffer:
    """One block of anonymous memory. Copying into pages that were used before takes a third of the time.

    Attributes:
        rotation: Which part of the tensors that are copied late is compared bit by bit in the next snapshot.
        transfers: What devices copy into it. It is not used anew or freed before that is done, also after a failure.
    """

    rotation: Rotation = field(default_factory=Rotation)
    transfers: list[Transfer] = field(default_factory=list)
    _memory: mmap.mmap | None = None
    _is_fresh: bool = False
    _pinned_by: torch.device | None = None
    _is_pin_tried: bool = False
    _preparing: threading.Thread | None = None

    def prepare(self, size: int, device: torch.device | None = None) -> None:
        """Make room for ``size`` bytes in the background, so that the first copy does not wait for it.

        Memory that is there stays: a save may be reading it. ``device``: a CUDA device that copies into it.
        """
        if self._memory is not None:
            return
        thread = threading.Thread(target=self._prepare, args=(size, device), name="checkpointable-memory", daemon=True)
        with contextlib.suppress(RuntimeError):  # no more threads: the first copy gets the memory
            thread.start()
            self._preparing = thread

    def _prepare(self, size: int, device: torch.device | None) -> None:
        with contextlib.suppress(MemoryError, OverflowError):  # the first copy asks again
            self._grow_to(size)
            self.populate()
            if device is not None:
                self.pin(device)

    def reserve(self, size: int) -> int:
        """Make room for ``size`` bytes, and return their address, which is aligned to a page.

        The earlier content is lost where the block has to grow. ``MemoryError`` says that there is not that much.
        """
        self._wait()
        return _address(self._grow_to(size))

    def _wait(self) -> None:
        if self._preparing is not None:
            self._preparing.join()
            self._preparing = None
        for transfer in self.transfers:
            transfer.wait()
        self.transfers.clear()

    def _grow_to(self, size: int) -> mmap.mmap:
        if self._memory is None or len(self._memory) < size:
            self._drop()  # first, so that there are never two blocks
            try:
                self._memory = mmap.mmap(-1, -(-max(size, 1) // _STEP) * _STEP)
            except OSError as error:
                raise MemoryError(f"not enough memory for a copy of {size:,} bytes") from error
            self._is_fresh = True
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):  # a kernel without huge pages
                    self._memory.madvise(mmap.MADV_HUGEPAGE)
        return self._memory

    def populate(self) -> None:
        """Have the system provide all pages at once."""
        if self._memory is not None and self._is_fresh:
            self._is_fresh = False
            memory.populate(_address(self._memory), len(self._memory))

    def pin(self, device: torch.device) -> None:
        """Lock the pages, so that a CUDA device copies into them by itself. Without that, each copy is waited for."""
        if self._memory is None or self._is_pin_tried:
            return
        self._is_pin_tried = True
        code = device_copy.pin(_address(self._memory), len(self._memory), device)
        if code == 0:
            self._pinned_by = device
        else:
            warnings.warn(
                f"{len(self._memory):,} bytes of memory for copies could not be pinned ({code}), so training waits"
                " for each copy from the GPU. Leave more memory free, or raise the limit (ulimit -l).",
                CheckpointableWarning,
                stacklevel=2,
            )

    def _drop(self) -> None:
        if self._memory is not None and self._pinned_by is not None:
            device_copy.unpin(_address(self._memory), self._pinned_by)
        self._memory, self._pinned_by, self._is_pin_tried = None, None, False

    def release(self) -> None:
        """Free the memory."""
        self._wait()
        self._drop()

    def __reduce__(self) -> tuple[type[StagingBuffer], tuple[()]]:
        return (StagingBuffer, ())


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
