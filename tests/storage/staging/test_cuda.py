"""On a real CUDA device: ``python -m pytest -m gpu``. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.serialization import config

from checkpointable.storage.format import torch_records
from checkpointable.storage.staging.buffer import StagingBuffer
from checkpointable.storage.staging.snapshot import Snapshot

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def written(taken: Snapshot, path: Path) -> dict[str, torch.Tensor]:
    path.write_bytes(b"".join(taken.pieces()))
    read: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return read


def state() -> dict[str, torch.Tensor]:
    """Half a gigabyte, so that its copy takes some ten milliseconds."""
    made = {str(number): torch.full((16_000_000 + number,), float(number), device="cuda") for number in range(8)}
    return {**made, "small": torch.ones(5, device="cuda"), "host": torch.ones(7)}


def test_steps_after_the_snapshot_do_not_reach_the_file(tmp_path: Path) -> None:
    buffer, tensors = StagingBuffer(), state()
    for _ in range(3):
        expected = {name: tensor.cpu() for name, tensor in tensors.items()}
        torch.cuda.synchronize()
        taken = Snapshot(tensors, {"epoch": 1}, buffer, [it for it in tensors.values() if it.is_cuda])
        busy = torch.rand(3000, 3000, device="cuda") @ torch.rand(3000, 3000, device="cuda")  # a forward meanwhile
        tensors["small"].add_(1.0)
        taken.wait_for_staging()
        for name, tensor in tensors.items():
            if name.isdigit():
                tensor.data.add_(1.0)
        assert taken.fill()
        read = written(taken, tmp_path / "a.ckpt")
        assert all(torch.equal(read[name], value) for name, value in expected.items())
        assert busy.isfinite().all()


def test_change_that_nothing_holds_back_is_found() -> None:
    tensors = state()
    late = [it for it in tensors.values() if it.is_cuda]
    torch.cuda._sleep(2_000_000_000)  # the copies wait behind it, and this is seen to be queued before them
    taken = Snapshot(tensors, {"epoch": 1}, StagingBuffer(), late)
    tensors["3"].add_(1.0)
    assert not taken.fill()


def test_no_memory_of_the_device_is_used_and_the_memory_of_the_host_is_pinned() -> None:
    tensors, buffer = state(), StagingBuffer()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    taken = Snapshot(tensors, {"epoch": 1}, buffer, [it for it in tensors.values() if it.is_cuda])
    taken.wait_for_staging()
    assert taken.fill()
    assert torch.cuda.max_memory_allocated() == before
    large = max(taken._data, key=len)
    assert torch.frombuffer(large, dtype=torch.uint8).is_pinned()


def test_file_says_what_torch_says(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(3, device="cuda"), "b": torch.ones(2, device="cuda")[1:]}
    assert [name for name, data in torch_records.records(tensors) if not isinstance(data, bytes) and data.is_cuda]
    ours, theirs = tmp_path / "a", tmp_path / "b"
    ours.write_bytes(b"".join(Snapshot(tensors, {"epoch": 1}, StagingBuffer()).pieces()))
    torch.save(tensors, theirs)
    for offsets in (False, True):
        with config.patch("load.calculate_storage_offsets", offsets):
            one, other = torch.load(ours), torch.load(theirs)
            assert all(torch.equal(one[name], other[name]) and one[name].is_cuda for name in tensors)


def test_watched_tensors_are_compared_bit_by_bit() -> None:
    tensors = state()
    late = [it for it in tensors.values() if it.is_cuda]
    for change in (False, True):
        taken = Snapshot(tensors, {"epoch": 1}, StagingBuffer(), late, watched=True)
        if change:
            tensors["5"].data[-1] = 77.0
        assert taken.has_changed() is change
        assert taken.fill()
