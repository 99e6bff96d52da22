"""Parameters that are changed where nobody expects it: such a save is not kept, and the next ones are right."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from copying import Gate, Wide, fit, note_states, torn, without_the_detection
from nets import files

from checkpointable import CheckpointableWarning
from checkpointable.storage.staging.rotation import Rotation
from checkpointable.storage.staging.snapshot import Snapshot

CHANGED = "the parameters were changed between two optimizer steps"


@pytest.fixture(autouse=True)
def gate(monkeypatch):
    return Gate(monkeypatch)


@pytest.fixture
def truth(monkeypatch):
    return note_states(monkeypatch)


class RawClosure(Wide):
    """Past Lightning's wrapper, with the closure: nobody calls ``on_before_optimizer_step``."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer.optimizer.step(optimizer_closure)


def told(
    directory: Any, tmp_path: Any, change: Callable[[torch.Tensor], object], *, at: Callable[[int], bool]
) -> list[str]:
    """What is warned of in a training whose user changes the weights at the start of the batches after these steps."""

    class Changing(L.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            for weight in pl_module.parameters() if at(trainer.global_step) else ():
                change(weight)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CheckpointableWarning)
        fit(Wide(dirpath=directory), tmp_path, callbacks=Changing)
    return [str(w.message) for w in caught if issubclass(w.category, CheckpointableWarning)]


def in_place(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight.mul_(0.9)


def one_element(weight: torch.Tensor) -> None:
    weight.data.view(-1)[5000:5001].add_(1.0)


def by_numpy(weight: torch.Tensor) -> None:
    weight.detach().numpy().__imul__(0.9)


CHANGES = {"in place": in_place, "data": lambda weight: weight.data.mul_(0.9), "numpy": by_numpy}


@pytest.mark.parametrize("change", [*CHANGES.values(), one_element], ids=[*CHANGES, "one element"])
def test_parameters_that_user_code_changes_lose_no_save_and_tear_none(tmp_path, truth, change):
    assert told(tmp_path / "saved", tmp_path, change, at=lambda step: step > 0) == []
    assert files(tmp_path / "saved") == [f"epoch_0_batch_{batch}.ckpt" for batch in (1, 2, 3, 4, 5)]
    assert torn(tmp_path / "saved", truth) == []


def test_parameters_that_user_code_changes_are_torn_where_the_first_save_is_not_watched(tmp_path, truth, monkeypatch):
    """The twin: samples alone do not find it."""
    monkeypatch.setattr(Snapshot, "has_changed", lambda taken: False)
    monkeypatch.setattr(Rotation, "next_part", lambda rotation, sizes: ())
    told(tmp_path / "saved", tmp_path, one_element, at=lambda step: step > 0)
    assert torn(tmp_path / "saved", truth) != []


def test_change_that_the_first_save_has_missed_is_found_when_its_part_is_compared(tmp_path, truth, monkeypatch):
    monkeypatch.setattr(Snapshot, "has_changed", lambda taken: False)
    caught = told(tmp_path / "saved", tmp_path, one_element, at=lambda step: step > 0)
    assert [CHANGED in message for message in caught] == [True]
    assert torn(tmp_path / "saved", truth) == []


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_parameters_changed_once_drop_one_copy_with_one_warning_and_are_saved_next(tmp_path, truth, change):
    caught = told(tmp_path / "saved", tmp_path, change, at=lambda step: step == 3)
    assert [CHANGED in message for message in caught] == [True]
    assert files(tmp_path / "saved") == [f"epoch_0_batch_{batch}.ckpt" for batch in (1, 2, 4, 5)]
    assert torn(tmp_path / "saved", truth) == []


def test_parameters_changed_once_are_torn_without_the_detection(tmp_path, truth, monkeypatch):
    """The twin."""
    without_the_detection(monkeypatch)
    told(tmp_path / "saved", tmp_path, in_place, at=lambda step: step == 3)
    assert torn(tmp_path / "saved", truth) != []


def test_step_past_lightnings_wrapper_with_a_closure_waits_for_the_copy(tmp_path, truth):
    fit(RawClosure(dirpath=tmp_path / "saved"), tmp_path)
    assert len(files(tmp_path / "saved")) == 5
    assert torn(tmp_path / "saved", truth) == []


class CrashError(Exception):
    """Thrown by the tests' own code."""


@pytest.mark.parametrize(
    "hook", ["on_train_batch_start", "on_before_backward", "on_after_backward", "on_train_batch_end"]
)
def test_exception_while_the_copy_is_made_leaves_the_file_whole(tmp_path, truth, hook):
    class Raising(L.Callback):
        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            for weight in pl_module.parameters():
                weight.data.zero_()

    def strike(callback: Any, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 3:
            raise CrashError

    setattr(Raising, hook, strike)
    with pytest.raises(CrashError):
        fit(Wide(dirpath=tmp_path / "saved"), tmp_path, callbacks=Raising)
    assert files(tmp_path / "saved")
    assert torn(tmp_path / "saved", truth) == []


def test_copy_that_fails_with_a_bug_ends_the_training_with_that_very_error(tmp_path, monkeypatch):
    def broken(taken: Snapshot) -> bool:
        taken._copies._filled.set()
        raise KeyError("a bug")

    monkeypatch.setattr(Snapshot, "fill", broken)
    with pytest.raises(KeyError, match="a bug"):
        fit(Wide(dirpath=tmp_path / "saved", save_on_exception=False), tmp_path)
    assert files(tmp_path / "saved") == []


def test_ctrl_c_before_the_writers_thread_begins_leaves_no_copy_that_is_waited_for(tmp_path, truth, monkeypatch):
    start, begun = threading.Thread.start, []

    def interrupted(thread: threading.Thread) -> None:
        begun.append(thread.name)
        if begun.count("checkpointable-writer") == 3:
            monkeypatch.undo()
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(SystemExit):
        fit(Wide(dirpath=tmp_path / "saved"), tmp_path)
    assert files(tmp_path / "saved") == [f"epoch_0_batch_{batch}.ckpt" for batch in (1, 2, 3)]
    assert torn(tmp_path / "saved", truth) == []
