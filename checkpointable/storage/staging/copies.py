"""The copies of one snapshot's storages into its memory: what is copied at once, what later, and what is held back.

Host and device differ in how they copy. Which tensors may be copied late is one rule for both: large ones that only
optimizer steps change. The memory belongs to this snapshot until its file is written; the next one begins after that.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from checkpointable.storage.direct import STAYS, UNIT
from checkpointable.storage.format import torch_records
from checkpointable.storage.format.zip_layout import Place
from checkpointable.storage.staging import device_copy
from checkpointable.storage.staging.buffer import StagingBuffer
from checkpointable.storage.staging.device_copy import DeviceCopy, Piece, Transfer
from checkpointable.storage.staging.host_copy import HostCopy, view
from checkpointable.storage.staging.rotation import MOST

_LARGE = 1 << 16  # bytes: smaller tensors are always copied at once
_MANY = 1 << 26


class Copies:
    """Copies, of which those of ``changed_only_by_steps`` that are large are completed by ``fill``.

    Args:
        found: The records of the file.
        places: Where they lie in the file.
        buffer: The memory.
        changed_only_by_steps: Tensors that do not change before ``hold_back`` is called.
        watched: Copy them at once, like all others, so that ``has_changed`` can compare them.

    Attributes:
        data: The bytes of each record.

    Raises:
        MemoryError: If there is not enough memory. Nothing was changed.
    """

    def __init__(
        self,
        found: Sequence[torch_records.Record],
        places: Sequence[Place],
        buffer: StagingBuffer,
        changed_only_by_steps: Iterable[torch.Tensor],
        *,
        watched: bool,
    ) -> None:
        self._buffer = buffer
        self._kept = [data for _, data in found if isinstance(data, torch.UntypedStorage)]
        self._later: list[HostCopy | DeviceCopy] = []
        self._watched: list[HostCopy | DeviceCopy] = []
        self._transfers: list[Transfer] = []  # all that devices make
        self._held_back: list[Transfer] = []  # of those, what a step has to wait for
        self._filled = threading.Event()
        large = _large(changed_only_by_steps)
        offsets, end = _offsets(found, places)
        uses_device = any(map(device_copy.lies_on_device, self._kept))
        compared = MOST + device_copy.SAMPLES * sum(place.size >= _LARGE for place in places) if uses_device else 0
        begin = buffer.reserve(end + compared)
        if uses_device:
            buffer.pin(next(it.device for it in self._kept if device_copy.lies_on_device(it)))
        elif watched or not large:
            buffer.populate()
        memory = view(begin, end)
        at_once: list[Piece] = []
        whole: list[tuple[int, int, int]] = []
        self.data: list[bytes | memoryview] = []
        for (_, data), place, offset in zip(found, places, offsets, strict=True):
            if isinstance(data, bytes):
                self.data.append(data)
                continue
            is_on_device = uses_device and device_copy.lies_on_device(data)
            tensors = large.get(data.data_ptr()) if place.size >= _LARGE else None
            if tensors is not None:
                kind = DeviceCopy if is_on_device else HostCopy
                (self._watched if watched else self._later).append(kind(data, begin + offset, place.size, tensors))
            if (tensors is None or watched) and is_on_device:
                at_once.append(Piece(data, 0, place.size, begin + offset))
            elif tensors is None or watched:
                whole.append((begin + offset, data.data_ptr(), place.size))
            self.data.append(memory[offset : offset + place.size])
        _copy(whole)
        target = self._copy_parts(begin + end, at_once)
        self._begin_on_devices(at_once, target)
        self._is_host_late = any(isinstance(copy, HostCopy) for copy in self._later)
        if not self._later and not self._transfers:
            self._filled.set()

    @property
    def is_filled(self) -> bool:
        """Whether all is copied."""
        return self._filled.is_set()

    def hold_back(self) -> None:
        """Before a tensor may change: wait until it is copied, or let its device wait."""
        for copy in self._later:
            if isinstance(copy, DeviceCopy):
                copy.note_changes()
        for transfer in self._held_back:
            transfer.hold_back()
        if self._is_host_late:
            self._filled.wait()

    def fill(self) -> bool:
        """Make the copies that were left for later, and tell whether those tensors were unchanged until then."""
        try:
            self._buffer.populate()
            for copy in self._later:
                if isinstance(copy, HostCopy):
                    copy.copy_rest()
            for transfer in self._transfers:
                transfer.wait()
            self._buffer.transfers.clear()
            return all(copy.is_unchanged() for copy in self._later)
        finally:
            self._later = []
            self._kept = []
            self._filled.set()

    def has_changed(self) -> bool | None:
        """Whether a watched tensor has changed since it was copied, compared bit by bit; ``None`` if none is watched.

        To be called once, before the buffer is used by another snapshot.
        """
        watched, self._watched = self._watched, []
        if any(isinstance(copy, DeviceCopy) for copy in watched):
            for transfer in self._transfers:
                transfer.wait()
        return any(copy.has_changed() for copy in watched) if watched else None

    def _copy_parts(self, target: int, at_once: list[Piece]) -> int:
        """Copy the parts that are compared, or have devices copy them to ``target``; returns where those end."""
        parts = self._buffer.rotation.next_part([copy.size for copy in self._later])
        for copy, (start, stop) in zip(self._later, parts, strict=False):
            if isinstance(copy, HostCopy):
                copy.copy_part(start, stop)
            else:
                at_once += copy.compared_before(start, stop, target)
                target += sum(piece.end - piece.begin for piece in at_once[-2:])
        return target

    def _begin_on_devices(self, at_once: Sequence[Piece], target: int) -> None:
        begun = self._buffer.transfers
        self._transfers = device_copy.begin(at_once, begun)
        for transfer in self._transfers:
            transfer.hold_back()
        late = [copy for copy in self._later if isinstance(copy, DeviceCopy)]
        after: list[Piece] = []
        for copy in late:
            after += copy.compared_after(target)
            target += sum(piece.end - piece.begin for piece in after[-3:])
        self._held_back = device_copy.begin([*(copy.whole for copy in late), *after], begun)
        self._transfers = [*self._transfers, *self._held_back]


def _large(tensors: Iterable[torch.Tensor]) -> dict[int, list[torch.Tensor]]:
    """The large ones that fill their storages, by the addresses of these.

    What else lies in a storage may change at any time. Of tensors made for inference, torch counts no changes.
    """
    large: dict[int, list[torch.Tensor]] = {}
    for tensor in tensors:
        if tensor.layout is torch.strided and tensor.nbytes >= _LARGE and not tensor.is_inference():
            storage = tensor.untyped_storage()
            if storage.nbytes() == tensor.nbytes:
                large.setdefault(storage.data_ptr(), []).append(tensor)
    return large


def _copy(pieces: Sequence[tuple[int, int, int]]) -> None:
    """Copy pieces of host memory: to, from and bytes of each. Two threads copy many bytes in two thirds of the time."""
    if sum(size for _, _, size in pieces) >= _MANY:
        with contextlib.suppress(RuntimeError), ThreadPoolExecutor(2, "checkpointable-copy") as pool:
            list(pool.map(ctypes.memmove, *zip(*pieces, strict=True)))
            return
    for piece in pieces:  # few, or there are no more threads
        ctypes.memmove(*piece)


def _offsets(found: Sequence[torch_records.Record], places: Sequence[Place]) -> tuple[list[int], int]:
    """Where in the buffer each record is copied to, and the end. Large data can be written from there."""
    alignment, end, offsets = torch_records.alignment(), 0, []
    for (_, data), place in zip(found, places, strict=True):
        if place.size >= STAYS:
            end += (place.data - end) % UNIT
        offsets.append(end)
        if not isinstance(data, bytes):
            end += -(-place.size // alignment) * alignment
    return offsets, end
