"""What lies on a device is copied by the device, late, and nothing changes it before."""

from __future__ import annotations

import ctypes
import io
from typing import Any

import pytest
import torch
from devices import Device, large, never_held_back

from checkpointable import CheckpointableWarning
from checkpointable.storage.staging import device_copy
from checkpointable.storage.staging.buffer import StagingBuffer
from checkpointable.storage.staging.device_copy import SAMPLES
from checkpointable.storage.staging.rotation import MOST, Rotation
from checkpointable.storage.staging.snapshot import Snapshot


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


class Pinned:
    """Notes which memory is pinned, and refuses if told to."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.code = 0

    def pin(self, address: int, size: int, device: torch.device) -> int:
        assert address % 4096 == 0
        assert address not in self.sizes
        if not self.code:
            self.sizes[address] = size
        return self.code

    def unpin(self, address: int, device: torch.device) -> None:
        del self.sizes[address]


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> Pinned:
    made = Pinned()
    monkeypatch.setattr(device_copy, "pin", made.pin)
    monkeypatch.setattr(device_copy, "unpin", made.unpin)
    return made


def snapshot(tensors: list[torch.Tensor], buffer: StagingBuffer, late: list[torch.Tensor], **options: Any) -> Snapshot:
    return Snapshot({"tensors": tensors}, {"epoch": 1}, buffer, late, **options)


def values(taken: Snapshot) -> list[Any]:
    read = torch.load(io.BytesIO(b"".join(taken.pieces())), weights_only=True)["tensors"]
    return [tensor.unique().tolist() for tensor in read]


def test_what_anything_may_change_is_held_back_at_once_and_the_rest_before_a_step(device: Device) -> None:
    tensors, small = large(1.0), torch.ones(5)
    taken = snapshot([*tensors, small], StagingBuffer(), tensors[:2])
    at_once, late = device.transfers
    assert (at_once.is_held_back, late.is_held_back) == (True, False)
    assert sorted(it.end - it.begin for it in late.pieces) == [*6 * [64], 400_000, 400_004]
    small.zero_(), tensors[2].zero_()
    assert not taken.is_filled
    taken.wait_for_staging()
    assert late.is_held_back
    for tensor in tensors[:2]:
        tensor.data.zero_()  # a step
    taken.fill()
    assert taken.is_filled
    assert values(taken) == [[1.0], [1.0], [1.0], [1.0]]


@pytest.mark.parametrize("when", ["at once", "before a step"])
def test_what_is_not_held_back_is_torn(device: Device, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """The twins."""
    never_held_back(monkeypatch)
    tensors = large(1.0)
    taken = snapshot(tensors, StagingBuffer(), tensors if when == "before a step" else [])
    taken.wait_for_staging()
    for tensor in tensors:
        tensor.data.zero_()
    taken.fill()
    assert values(taken) == [[0.0]] * 3


def test_background_waits_for_the_device(device: Device) -> None:
    tensors = large(1.0)
    taken = snapshot(tensors, StagingBuffer(), tensors)
    assert not any(it.begun.is_set() for it in device.transfers[1:])
    assert taken.fill()
    assert all(it.made.is_set() for it in device.transfers)
    assert values(taken) == [[1.0]] * 3


@pytest.mark.parametrize("how", ["counted", "not counted", "not counted, in the part alone"])
def test_change_before_the_copy_is_found(device: Device, how: str) -> None:
    tensors, buffer = large(1.0), StagingBuffer()
    taken = snapshot(tensors, buffer, tensors)
    if how == "counted":
        tensors[1].view(-1)[77:78].add_(1.0)
    elif how == "not counted":
        tensors[2].data.mul_(2.0)
    else:
        tensors[0].data[3:4].add_(1.0)  # the first part begins there
    assert not taken.fill()


@pytest.mark.parametrize("places", [(0, 100_000), (50_000, 100_000), (99_990, 100_000)])
def test_change_while_it_is_copied_is_found(device: Device, monkeypatch: pytest.MonkeyPatch, places: Any) -> None:
    """What is compared before the copy was copied before the change."""
    tensors = large(1.0)
    taken = snapshot(tensors, StagingBuffer(), tensors)
    late = device.transfers[-1]
    whole, samples = late.pieces[:3], late.pieces[3:]
    late.pieces = whole[:2]
    late.wait()
    tensors[0].data[slice(*places)] += 1.0
    for storage, begin, end, target in [*whole[2:], *samples]:
        ctypes.memmove(target, storage.data_ptr() + begin, end - begin)
    assert not taken.fill()


def test_change_of_one_element_is_not_found_where_no_part_is_compared(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin."""
    monkeypatch.setattr(Rotation, "next_part", lambda rotation, sizes: [(0, 0) for _ in sizes])
    tensors = large(1.0)
    taken = snapshot(tensors, StagingBuffer(), tensors)
    tensors[0].data[3:4].add_(1.0)
    assert taken.fill()


def test_change_after_the_copy_does_not_count(device: Device) -> None:
    tensors = large(1.0)
    taken = snapshot(tensors, StagingBuffer(), tensors)
    taken.wait_for_staging()
    for tensor in tensors:
        tensor.data.zero_()
    assert taken.fill()


@pytest.mark.parametrize("changes", [False, True])
def test_watched_tensors_are_compared_bit_by_bit(device: Device, changes: bool) -> None:
    tensors = [*large(1.0), torch.ones(5_000_000)]  # more than is compared at once
    taken = snapshot(tensors, StagingBuffer(), tensors, watched=True)
    assert [it.is_held_back for it in device.transfers] == [True]
    if changes:
        tensors[3].data[-1] = 2.0
    assert taken.has_changed() is changes
    assert taken.fill()
    assert values(taken) == [[1.0]] * 4


def test_memory_is_pinned_once_until_it_grows_or_is_freed(device: Device, pinned: Pinned) -> None:
    buffer, tensors = StagingBuffer(), large(1.0)
    for _ in range(3):
        assert snapshot(tensors, buffer, tensors).fill()
        ((first, size),) = pinned.sizes.items()
        assert size >= 1_200_000 + MOST + 3 * SAMPLES
    assert snapshot(large(1.0, 30), buffer, []).fill()
    ((second, size),) = pinned.sizes.items()
    assert size >= 12_000_000
    buffer.release()
    assert pinned.sizes == {}
    assert first or second


def test_memory_that_is_prepared_is_pinned_in_the_background(pinned: Pinned) -> None:
    buffer = StagingBuffer()
    buffer.prepare(1 << 22, torch.device("cpu"))
    address = buffer.reserve(1 << 22)
    assert pinned.sizes == {address: 1 << 22}


def test_memory_that_cannot_be_pinned_is_told_once_and_used(device: Device, pinned: Pinned) -> None:
    pinned.code = 2
    buffer, tensors = StagingBuffer(), large(1.0)
    with pytest.warns(CheckpointableWarning, match=r"could not be pinned \(2\), so training waits for each copy"):
        assert snapshot(tensors, buffer, tensors).fill()
    taken = snapshot(tensors, buffer, tensors)
    assert taken.fill()
    assert values(taken) == [[1.0]] * 3


def test_memory_is_not_used_anew_while_the_device_still_copies_into_it(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer, tensors = StagingBuffer(), large(1.0)
    snapshot(tensors, buffer, tensors)  # given up, as after Ctrl-C
    assert not device.transfers[-1].made.is_set()
    buffer.reserve(1)
    assert device.transfers[-1].made.is_set()


def test_without_memory_for_copies_the_device_is_waited_for(device: Device) -> None:
    taken = Snapshot({"tensors": large(1.0)}, {"epoch": 1})
    assert device.transfers == []
    assert values(taken) == [[1.0]] * 3
