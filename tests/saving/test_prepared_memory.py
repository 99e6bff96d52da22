"""The memory for copies of the state is there before the first save needs it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import Net, loader, trainer

from checkpointable import CheckpointableWarning
from checkpointable.storage.staging.buffer import StagingBuffer


@pytest.fixture
def asked(monkeypatch):
    """What memory was asked for: when it was prepared, and for each copy, with whether it had to grow."""
    calls: list[tuple[str, int, bool]] = []
    prepare, reserve = StagingBuffer.prepare, StagingBuffer.reserve

    def preparing(self: Any, size: int, device: Any) -> None:
        calls.append(("prepared", size, True))
        prepare(self, size, device)

    def reserving(self: Any, size: int) -> int:
        self._wait()
        before = self._memory
        address = reserve(self, size)
        calls.append(("copied", size, self._memory is not before))
        return address

    monkeypatch.setattr(StagingBuffer, "prepare", preparing)
    monkeypatch.setattr(StagingBuffer, "reserve", reserving)
    return calls


class Wide(Net):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.wide = torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.BatchNorm1d(300))
        self.register_buffer("graph", torch.eye(3).to_sparse())
        self.frozen = torch.nn.Linear(600, 600)
        self.tied = self.wide[0].weight


@pytest.mark.parametrize("lean", [{}, {"save_weights_only": True}, {"save_trainable_only": True}], ids=str)
def test_memory_for_all_copies_is_prepared_after_the_first_step(tmp_path, asked, lean):
    net = Wide(dirpath=tmp_path, save_interval=3, **lean)
    if "save_trainable_only" in lean:
        net.frozen.requires_grad_(False)
    trainer(tmp_path, max_epochs=1, accumulate_grad_batches=2).fit(net, loader(6))
    (what, prepared, _), *copies = asked
    assert what == "prepared"
    assert [(what, grew) for what, _, grew in copies] == [("copied", False)] * len(copies) != []
    assert max(size for _, size, _ in copies) <= prepared <= max(size for _, size, _ in copies) + (1 << 21)


def test_without_it_the_first_save_gets_the_memory(tmp_path, asked, monkeypatch):
    """The twin."""
    monkeypatch.setattr("checkpointable.saving.saver.expected_bytes", lambda trainer, options: 1)
    monkeypatch.setattr("checkpointable.storage.staging.buffer._STEP", 1 << 12)
    trainer(tmp_path, max_epochs=1).fit(Wide(dirpath=tmp_path, save_interval=3), loader(6))
    assert next(grew for what, _, grew in asked if what == "copied")


def test_no_memory_is_prepared_where_training_waits_for_each_save(tmp_path, asked):
    trainer(tmp_path, max_epochs=1).fit(Wide(dirpath=tmp_path, async_save=False), loader(4))
    assert asked == []


def test_run_without_the_memory_saves_all_the_same(tmp_path, monkeypatch):
    def refuse(self: Any, size: int) -> Any:
        raise MemoryError(f"not enough memory for a copy of {size:,} bytes")

    monkeypatch.setattr(StagingBuffer, "_grow_to", refuse)
    with pytest.warns(CheckpointableWarning, match="not enough memory .* so training waits for this save"):
        trainer(tmp_path, max_epochs=1).fit(Wide(dirpath=tmp_path, save_interval=3, save_last_k=-1), loader(6))
    assert (tmp_path / "epoch_0_batch_3.ckpt").exists()


def test_memory_is_not_prepared_while_a_save_is_in_progress(tmp_path, asked):
    """It may be reading the memory. The next batch asks again."""
    net = Wide(dirpath=tmp_path)
    own = trainer(tmp_path, max_epochs=1)
    own.fit(net, loader(2))
    saver, asked[:] = net._checkpointing.saver, []
    saver.in_progress, saver.is_prepared = object(), False
    saver.prepare(own, net._checkpointing.options)
    assert (saver.is_prepared, asked) == (False, [])


def test_buffers_that_are_not_saved_need_no_memory(tmp_path, asked):
    net = Wide(dirpath=tmp_path, save_interval=3)
    net.register_buffer("large", torch.zeros(10_000_000), persistent=False)
    trainer(tmp_path, max_epochs=1).fit(net, loader(6))
    assert next(size for what, size, _ in asked if what == "prepared") < 10_000_000
