"""Weights that share memory with others, or whose memory torch moves or frees, while they are copied."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from copying import WIDTH, Gate, Wide, fit, note_states, torn
from nets import files

from checkpointable import CheckpointableWarning
from checkpointable.storage.staging import copies, host_copy, unowned
from checkpointable.storage.staging.buffer import StagingBuffer
from checkpointable.storage.staging.snapshot import Snapshot

CHANGED = "the parameters were changed between two optimizer steps"
MANY = 1 << 24  # elements: so much memory goes back to the system when it is freed


@pytest.fixture
def truth(monkeypatch):
    Gate(monkeypatch)
    return note_states(monkeypatch)


class Joined(Wide):
    """The first copy is not held up: it is that of a weight that nothing uses."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.first = torch.nn.Parameter(torch.zeros(WIDTH, WIDTH))


class Tied(Joined):
    """Two weights share memory, and torch counts the changes of each by itself. One of them is changed once."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.layer[2].weight.data = self.layer[1].weight.data

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 3:
            with torch.no_grad():
                self.layer[1].weight.mul_(0.9)


class Flat(Joined):
    """A buffer that each batch changes lies in the memory of a weight."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        flat = torch.cat([self.layer[1].weight.data.flatten(), torch.zeros(WIDTH)])
        self.layer[1].weight.data = flat[:-WIDTH].view(WIDTH, WIDTH)
        self.register_buffer("count", flat[-WIDTH:])

    def compute_loss(self, batch: Any, batch_idx: int) -> Any:
        self.count += 1
        return super().compute_loss(batch, batch_idx)


class Inferring(Wide):
    """The state of its optimizer is made for inference, so torch counts none of its changes."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        with torch.enable_grad():
            optimizer_closure()
        with torch.inference_mode():
            optimizer.step(lambda: None)


def test_change_of_one_of_two_weights_that_share_memory_is_found(tmp_path, truth):
    with pytest.warns(CheckpointableWarning, match=CHANGED):
        fit(Tied(dirpath=tmp_path / "saved"), tmp_path)
    assert torn(tmp_path / "saved", truth) == []
    assert len(files(tmp_path / "saved")) == 4


def test_change_of_the_other_one_alone_would_be_missed(tmp_path, truth, monkeypatch):
    """The twin: only the last tensor in the storage is asked, and no element of it is compared."""
    monkeypatch.setattr(host_copy, "versions", lambda tensors: [tensors[-1]._version])
    monkeypatch.setattr(host_copy, "_fingerprint", lambda *place: ())
    monkeypatch.setattr(unowned, "is_same", lambda *place: True)
    fit(Tied(dirpath=tmp_path / "saved"), tmp_path)
    assert torn(tmp_path / "saved", truth) != []


def test_buffer_in_the_memory_of_a_weight_is_that_of_the_safe_point(tmp_path, truth):
    fit(Flat(dirpath=tmp_path / "saved"), tmp_path)
    assert torn(tmp_path / "saved", truth) == []
    assert len(files(tmp_path / "saved")) == 5


def test_such_a_buffer_would_be_that_of_a_later_batch(tmp_path, truth, monkeypatch):
    """The twin: the whole storage is copied later."""
    monkeypatch.setattr(
        copies, "_large", lambda tensors: {it.untyped_storage().data_ptr(): [it] for it in tensors if it.numel() > 1}
    )
    monkeypatch.setattr(host_copy.HostCopy, "is_unchanged", lambda copy: True)
    monkeypatch.setattr(Snapshot, "has_changed", lambda taken: False)
    fit(Flat(dirpath=tmp_path / "saved"), tmp_path)
    assert torn(tmp_path / "saved", truth) != []


def test_optimizer_with_a_state_made_for_inference_is_saved(tmp_path, truth):
    fit(Inferring(dirpath=tmp_path / "saved"), tmp_path)
    assert torn(tmp_path / "saved", truth) == []
    assert len(files(tmp_path / "saved")) == 5


def freed(weight: torch.Tensor) -> None:
    weight.untyped_storage().resize_(0)


def shared(weight: torch.Tensor) -> None:
    weight.share_memory_()


def freed_for_a_moment(weight: torch.Tensor) -> None:
    kept = weight.clone()
    freed(weight)
    weight.untyped_storage().resize_(kept.nbytes)
    weight.data.copy_(kept)


def taken(weight: torch.Tensor, *, watched: bool = False) -> Snapshot:
    return Snapshot({"weight": weight}, None, StagingBuffer(), [weight], watched=watched)


def content(copy: Snapshot) -> bytes:
    return b"".join(map(bytes, copy.pieces()))


@pytest.mark.parametrize("move", [freed, shared])
def test_copy_of_memory_that_is_not_there_any_more_is_dropped(move: Callable[[torch.Tensor], None]) -> None:
    weight = torch.ones(MANY)
    copy = taken(weight)
    move(weight)
    assert copy.fill() is False


def test_copy_of_memory_that_was_freed_for_a_moment_is_right_or_dropped() -> None:
    weight = torch.randn(MANY)
    whole = weight.clone().numpy().tobytes()  # what numpy looks at cannot be freed
    copy = taken(weight)
    freed_for_a_moment(weight)
    assert not copy.fill() or whole in content(copy)


@pytest.mark.parametrize("move", [freed, shared])
def test_such_a_copy_would_end_the_process(move: Callable[[torch.Tensor], None]) -> None:
    """The twin, in a child: the memory is read as if it were there."""

    def read(target: int, source: int, size: int) -> bool:
        host_copy.ctypes.memmove(target, source, size)
        return True

    weight = torch.ones(MANY)
    copy = taken(weight)
    move(weight)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            unowned._read = read
            copy._copies._later[0].copy_rest()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV


def test_moved_memory_is_no_change_and_freed_memory_is_one() -> None:
    weight = torch.ones(MANY)
    copy = taken(weight, watched=True)
    shared(weight)
    assert copy.has_changed() is False
    copy = taken(weight, watched=True)
    freed(weight)
    assert copy.has_changed() is True


def test_system_that_refuses_the_call_gets_a_plain_copy(monkeypatch) -> None:
    monkeypatch.setattr(unowned, "_call", lambda: lambda *_: -1)
    monkeypatch.setattr(unowned.ctypes, "get_errno", lambda: 1)
    weight = torch.randn(MANY)
    copy = taken(weight)
    assert copy.fill()
    assert weight.numpy().tobytes() in content(copy)
