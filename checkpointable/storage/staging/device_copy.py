"""Copies of what lies on a CUDA device into host memory. The device makes them, on a stream of their own.

That stream begins with what was queued before, so each copy is of the present state. Neither the host nor training
waits: only what may change a tensor next is held back on the device until its copy is made, a step until those of the
parameters are (as in torchtitan's ``maybe_wait_for_staging``; DataStates-LLM, HPDC'24). There is no copy on the device.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from checkpointable.storage.staging.host_copy import versions, view
from checkpointable.storage.staging.unowned import differ

SAMPLE = 1 << 6  # bytes
SAMPLES = 4 * SAMPLE  # of each tensor that is copied late
_COMPARED = 1 << 24  # bytes that are brought back to the device at once
_HOST = torch.device("cpu")


class Piece(NamedTuple):
    """Bytes of a storage on a device, and the address in host memory that they are copied to."""

    storage: torch.UntypedStorage
    begin: int
    end: int
    target: int


class Transfer(Protocol):
    """Copies that a device makes. The caller keeps the storages until they are made."""

    def hold_back(self) -> None:
        """Let what is queued from now on, on the current stream, begin when they are made. The host goes on."""

    def wait(self) -> None:
        """Wait until they are made, on any thread."""


@dataclass(eq=False)
class DeviceCopy:
    """The copy of a large tensor on a device that only optimizer steps change."""

    storage: torch.UntypedStorage
    target: int
    size: int
    tensors: Sequence[torch.Tensor]  # those in the storage: joined by ``.data``, each has a count of its own

    def __post_init__(self) -> None:
        self._versions = versions(self.tensors)
        self._source = self.storage.data_ptr()
        self._was_unchanged: bool | None = None  # when its changes were held back
        self._compared: list[Piece] = []

    @property
    def whole(self) -> Piece:
        """All of it."""
        return Piece(self.storage, 0, self.size, self.target)

    def compared_before(self, begin: int, end: int, target: int) -> list[Piece]:
        """A few bytes of the middle, and a part: copied to ``target``, before all of it is."""
        return self._compare([(self.size // 2, self.size // 2 + SAMPLE), (begin, end)], target)

    def compared_after(self, target: int) -> list[Piece]:
        """A few bytes of the begin, the middle and the end: copied to ``target``, after all of it is."""
        return self._compare([(at, at + SAMPLE) for at in (0, self.size // 2, self.size - SAMPLE)], target)

    def _compare(self, ranges: Sequence[tuple[int, int]], target: int) -> list[Piece]:
        pieces = []
        for begin, end in ranges:
            pieces.append(Piece(self.storage, begin, end, target))
            target += end - begin
        self._compared += pieces
        return pieces

    def note_changes(self) -> None:
        """Just before its changes are held back: what torch counts after that no longer matters."""
        if self._was_unchanged is None:
            self._was_unchanged = self._is_as_before()

    def is_unchanged(self) -> bool:
        """Whether it was unchanged until it was copied, as far as torch's count and what is compared show it."""
        is_unchanged = self._is_as_before()  # before the next line: a step may come in between
        counted = is_unchanged if self._was_unchanged is None else self._was_unchanged
        return counted and not any(
            differ(it.target, self.target + it.begin, it.end - it.begin) for it in self._compared
        )

    def _is_as_before(self) -> bool:
        """Whether torch has counted no change, and the memory is where it was."""
        return versions(self.tensors) == self._versions and self.storage.data_ptr() == self._source

    def has_changed(self) -> bool:
        """Whether the tensor and its copy differ in any bit. The copy is made, and the host waits."""
        if self.storage.nbytes() != self.size:
            return True
        source = _bytes_of(self.storage)
        for begin in range(0, self.size, _COMPARED):
            end = min(begin + _COMPARED, self.size)
            if not torch.equal(source[begin:end], _bytes_at(self.target + begin, end - begin).to(source.device)):
                return True
        return False


def lies_on_device(storage: torch.UntypedStorage) -> bool:
    """Whether a storage does not lie in host memory."""
    return storage.device != _HOST


def begin(pieces: Sequence[Piece], begun: list[Transfer]) -> list[Transfer]:
    """Have each device begin to copy what lies on it. Each transfer is also noted in ``begun``, before the next one."""
    pieces = [piece for piece in pieces if piece.begin < piece.end]
    transfers: list[Transfer] = []
    for device in dict.fromkeys(piece.storage.device for piece in pieces):
        transfers.append(_Cuda(device, [piece for piece in pieces if piece.storage.device == device]))
        begun.append(transfers[-1])
    return transfers


def pin(address: int, size: int, device: torch.device) -> int:
    """Lock pages in host memory, so that a device copies into them by itself. Returns CUDA's error code, 0 for none."""
    with torch.cuda.device(device):  # else a thread that has none makes a context on the first one
        code = int(torch.cuda.cudart().cudaHostRegister(address, size, 0))  # type: ignore[no-untyped-call]
        if code:
            with contextlib.suppress(RuntimeError):  # CUDA would tell it to the next launch: have it told to this one
                torch.ones(1, device=device).add_(1)
        return code


def unpin(address: int, device: torch.device) -> None:
    """Undo ``pin``."""
    with torch.cuda.device(device):
        torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]


class _Cuda:
    def __init__(self, device: torch.device, pieces: Sequence[Piece]) -> None:
        self._device, own = device, _stream(device)
        own.wait_stream(torch.cuda.current_stream(device))
        try:
            with torch.cuda.stream(own):
                for storage, begin, end, target in pieces:
                    _bytes_at(target, end - begin).copy_(_bytes_of(storage)[begin:end], non_blocking=True)
            self._made = own.record_event()
        except BaseException:
            own.synchronize()
            raise

    def hold_back(self) -> None:
        torch.cuda.current_stream(self._device).wait_event(self._made)

    def wait(self) -> None:
        with torch.cuda.device(self._device):  # as in ``pin``
            self._made.synchronize()


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _bytes_at(address: int, size: int) -> torch.Tensor:
    """Host memory as a tensor. The caller keeps it alive."""
    return torch.frombuffer(view(address, size), dtype=torch.uint8)
