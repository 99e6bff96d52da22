"""A snapshot keeps the state of its moment, whatever training changes afterwards."""

from __future__ import annotations

import ctypes
import io
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpointable.storage import direct
from checkpointable.storage.format import verify
from checkpointable.storage.staging import rotation, unowned
from checkpointable.storage.staging.buffer import StagingBuffer
from checkpointable.storage.staging.snapshot import Snapshot

LARGE = 100_000  # elements: more than what is copied at once


class Copying:
    """Replaces ``memmove``: counts what is copied, and copies it."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self._copy = ctypes.memmove

    def __call__(self, target: int, source: int, size: int) -> None:
        self.before()
        self.sizes.append(size)
        self._copy(target, source, size)
        self.after()


@pytest.fixture
def copying(monkeypatch: pytest.MonkeyPatch) -> Copying:
    counting = Copying()
    monkeypatch.setattr(ctypes, "memmove", counting)
    monkeypatch.setattr(unowned, "copy", lambda *place: counting(*place) is None)
    return counting


def content(taken: Snapshot) -> bytes:
    return b"".join(bytes(piece) for piece in taken.pieces())


def loaded(taken: Snapshot) -> Any:
    return torch.load(io.BytesIO(content(taken)), weights_only=False)


def taken(
    checkpoint: dict[str, Any], changed_only_by_steps: Iterable[torch.Tensor] = (), buffer: StagingBuffer | None = None
) -> Snapshot:
    return Snapshot(checkpoint, {"epoch": 1}, StagingBuffer() if buffer is None else buffer, changed_only_by_steps)


def state() -> tuple[dict[str, Any], list[torch.Tensor]]:
    """A checkpoint, and what of it only an optimizer's step changes."""
    weight, small = torch.randn(LARGE), torch.randn(3)
    checkpoint = {
        "weight": weight,
        "small": small,
        "buffer": torch.randn(LARGE),
        "array": np.arange(LARGE),
        "numbers": {"loss": [1.0, 2.0]},
    }
    return checkpoint, [weight, small]


def change(checkpoint: dict[str, Any]) -> None:
    for name in ("weight", "small", "buffer"):
        checkpoint[name].add_(1)
    checkpoint["array"] += 1
    checkpoint["numbers"]["loss"][0] = 7.0
    checkpoint["numbers"]["new"] = 1


def equal(one: Any, other: Any) -> bool:
    return (
        all(torch.equal(one[name], other[name]) for name in ("weight", "small", "buffer"))
        and np.array_equal(one["array"], other["array"])
        and one["numbers"] == other["numbers"]
    )


def test_changes_after_the_copy_do_not_reach_the_file() -> None:
    checkpoint, changed_only_by_steps = state()
    now = taken(checkpoint, changed_only_by_steps)
    before = loaded(Snapshot(checkpoint, None))
    assert not now.is_filled
    assert now.fill()
    now.wait_for_staging()
    change(checkpoint)
    assert equal(loaded(now), before)


def test_changes_of_other_tensors_before_the_copy_do_not_reach_the_file() -> None:
    checkpoint, changed_only_by_steps = state()
    now = taken(checkpoint, changed_only_by_steps)
    before = loaded(Snapshot(checkpoint, None))
    weight = checkpoint["weight"].clone()
    change(checkpoint)
    checkpoint["weight"].copy_(weight)
    now.fill()
    assert equal(loaded(now), before)


def test_changes_reach_the_file_where_nothing_is_copied() -> None:
    """The twin: without a buffer the tensors of the file are those of the training."""
    checkpoint, _ = state()
    now = Snapshot(checkpoint, {"epoch": 1})
    before = loaded(now)
    assert now.is_filled
    assert now.fill()
    checkpoint["weight"].add_(1)
    after = loaded(now)
    assert torch.equal(after["weight"], checkpoint["weight"])
    assert not torch.equal(after["weight"], before["weight"])


def test_nothing_is_copied_without_a_buffer(copying: Copying) -> None:
    Snapshot(state()[0], {"epoch": 1}).fill()
    assert copying.sizes == []


def test_every_storage_is_copied_once_those_changed_only_by_steps_later(copying: Copying) -> None:
    checkpoint, changed_only_by_steps = state()
    now = taken(checkpoint, changed_only_by_steps)
    part = rotation._LEAST  # is compared, so it is copied at once
    assert sorted(copying.sizes) == [12, part, 4 * LARGE]
    now.fill()
    assert sorted(copying.sizes) == [12, part, 4 * LARGE - part, 4 * LARGE]


def test_no_tensor_is_left_to_copy_where_none_is_large() -> None:
    small = torch.ones(10)
    assert taken({"small": small}, [small]).is_filled


CHANGES: dict[str, Callable[[torch.Tensor], object]] = {
    "in place": lambda weight: weight.add_(1),
    "through data": lambda weight: weight.data.mul_(2),
    "through numpy": lambda weight: weight.detach().numpy().__iadd__(1),
    "through a view": lambda weight: weight.detach().view(2, -1)[1:].zero_(),
    "without gradients": lambda weight: change_without_gradients(weight),
    "by foreach": lambda weight: torch._foreach_mul_([weight.detach()], 3.0),
}


def change_without_gradients(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight.mul_(0.5)


@pytest.mark.parametrize("how", CHANGES)
def test_tensor_changed_before_its_copy_is_reported(how: str) -> None:
    checkpoint, changed_only_by_steps = state()
    now = taken(checkpoint, changed_only_by_steps)
    CHANGES[how](checkpoint["weight"])
    assert not now.fill()
    assert now.is_filled


@pytest.mark.parametrize("how", CHANGES)
def test_tensor_changed_after_its_copy_and_before_the_last_one_is_reported(how: str, copying: Copying) -> None:
    checkpoint, changed_only_by_steps = state()
    now = taken(checkpoint, changed_only_by_steps)
    copying.after = lambda: CHANGES[how](checkpoint["weight"])
    assert not now.fill()


def test_change_that_torch_does_not_count_is_found_once_its_part_has_its_turn() -> None:
    weight, buffer, found = torch.randn(LARGE), StagingBuffer(), []
    for _ in range(7):
        now = taken({"weight": weight}, [weight], buffer)
        weight.data[81_000] += 1  # lies in none of the samples
        found.append(not now.fill())
    assert found == [part * rotation._LEAST <= 4 * 81_000 < (part + 1) * rotation._LEAST for part in range(7)]


def test_change_of_one_element_is_not_found_where_no_part_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin."""
    monkeypatch.setattr(rotation.Rotation, "next_part", lambda rotation, sizes: ())
    weight, buffer = torch.randn(LARGE), StagingBuffer()
    for _ in range(7):
        now = taken({"weight": weight}, [weight], buffer)
        weight.data[81_000] += 1
        assert now.fill()


def test_parameter_that_is_only_used_is_not_reported() -> None:
    weight = torch.nn.Parameter(torch.randn(LARGE))
    now = taken({"weight": weight}, [weight])
    (weight * 2).sum().backward()
    weight.grad.add_(1)
    assert now.fill()


def test_failed_copy_does_not_hold_training_up(copying: Copying) -> None:
    checkpoint, changed_only_by_steps = state()
    now = taken(checkpoint, changed_only_by_steps)

    def fail() -> None:
        raise KeyError("a bug")

    copying.before = fail
    with pytest.raises(KeyError):
        now.fill()
    now.wait_for_staging()
    assert now.is_filled


def test_tied_weights_stay_tied_and_are_copied_once(copying: Copying) -> None:
    first, second = torch.nn.Linear(300, 300), torch.nn.Linear(300, 300)
    second.weight = first.weight
    now = taken(torch.nn.ModuleList([first, second]).state_dict(), first.parameters())
    now.fill()
    assert sum(size for size in copying.sizes if size != 1_200) == 4 * 90_000, "but for the two biases"
    back = loaded(now)
    assert back["0.weight"].data_ptr() == back["1.weight"].data_ptr()


def test_views_keep_their_storage_and_expanded_tensors_stay_small(copying: Copying) -> None:
    base = torch.arange(float(LARGE))
    view, expanded = base[500:600], torch.ones(1).expand(LARGE)
    now = taken({"view": view, "expanded": expanded}, [view, expanded])
    now.fill()
    assert sorted(copying.sizes) == [4, 4 * LARGE]
    back = loaded(now)
    assert torch.equal(back["view"], view)
    assert back["view"].untyped_storage().nbytes() == 4 * LARGE
    assert back["expanded"].stride() == (0,)


def test_pieces_asked_for_twice_are_the_same_bytes() -> None:
    checkpoint, changed_only_by_steps = state()
    now = taken(checkpoint, changed_only_by_steps)
    now.fill()
    assert content(now) == content(now)


@pytest.mark.parametrize("metadata", [None, {"epoch": 1}])
@pytest.mark.parametrize("buffer", [True, False])
def test_size_is_the_number_of_bytes(metadata: dict[str, Any] | None, buffer: bool) -> None:
    checkpoint, changed_only_by_steps = state()
    now = Snapshot(checkpoint, metadata, StagingBuffer() if buffer else None, changed_only_by_steps)
    now.fill()
    assert now.size == len(content(now))


def test_copied_and_not_copied_give_the_same_bytes() -> None:
    checkpoint, changed_only_by_steps = state()
    now = taken(checkpoint, changed_only_by_steps)
    now.fill()
    assert content(now) == content(Snapshot(checkpoint, {"epoch": 1}))


class MakesItsState:
    """Creates tensors while it is pickled, and keeps no reference to them."""

    def __getstate__(self) -> dict[str, Any]:
        return {"made": torch.full((LARGE * 20,), 3.0)}


@pytest.mark.parametrize("buffer", [True, False])
def test_tensor_that_is_made_while_pickling_lives_until_the_file_is_written(buffer: bool) -> None:
    now = Snapshot({"own": MakesItsState()}, None, StagingBuffer() if buffer else None)
    assert now.fill()
    others = [torch.full((LARGE * 20,), 7.0) for _ in range(4)]  # they take the memory of what was let go
    assert loaded(now)["own"].made.unique().tolist() == [3.0]
    assert len(others) == 4


def test_checkpoint_that_cannot_be_pickled_raises_and_leaves_the_buffer_as_it_was() -> None:
    buffer = StagingBuffer()
    checkpoint, _ = state()
    earlier = taken(checkpoint, buffer=buffer)
    earlier.fill()
    before = content(earlier)
    with pytest.raises(Exception, match="pickle"):
        taken({"bad": lambda: None, "weight": torch.zeros(LARGE)}, buffer=buffer)
    assert content(earlier) == before


def test_next_snapshot_uses_the_same_memory() -> None:
    buffer = StagingBuffer()
    checkpoint, changed_only_by_steps = state()
    for value in (1.0, 2.0, 3.0):
        checkpoint["weight"].fill_(value)
        now = taken(checkpoint, changed_only_by_steps, buffer)
        address = buffer.reserve(0)
        assert now.fill()
        assert loaded(now)["weight"].unique().tolist() == [value]
        assert buffer.reserve(0) == address


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no direct writes")
def test_large_tensors_are_written_from_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = {str(size): torch.rand(size) for size in (3, 300_000, 20_000, 1_000_000, 300_001, 5, 3_000_000)}
    saved = Snapshot(checkpoint, {"epoch": 1}, StagingBuffer())
    copied: list[int] = []
    real = direct._copy
    monkeypatch.setattr(direct, "_copy", lambda source, to: (copied.append(len(source)), real(source, to)))
    with open(tmp_path / "a.ckpt", "x+b") as file:
        direct.write(saved, file)
    assert sum(copied) < 20_000 * 4 + 20 * direct.UNIT
    assert verify.problem(tmp_path / "a.ckpt") is None
    read = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert all(torch.equal(read[name], value) for name, value in checkpoint.items())


@pytest.mark.parametrize("started", [2, 1, 0], ids=["two threads", "one", "none"])
def test_many_bytes_are_copied_at_once_by_as_many_threads_as_there_are(monkeypatch, copying, started):
    state = {f"w{at}": torch.full((3_000_000,), float(at)) for at in range(6)}  # 72 MB
    copied_by, start, left = set(), threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        left.append(thread)
        if len(left) > started:
            raise RuntimeError("can't start new thread")
        start(thread)

    copying.before = lambda: copied_by.add(threading.current_thread().name)
    monkeypatch.setattr(threading.Thread, "start", limited)
    snapshot = taken(state)
    assert all(torch.equal(loaded(snapshot)[name], value) for name, value in state.items())
    assert any(name.startswith("checkpointable-copy") for name in copied_by) is (started > 0)
    assert not [it for it in threading.enumerate() if it.name.startswith("checkpointable-copy")]
