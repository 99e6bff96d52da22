"""Python's garbage collector does not run while a state is captured, and is left as the user had it."""

from __future__ import annotations

import gc
from typing import Any

import lightning as L
import pytest
from nets import QUIET, Net, loader

from checkpointable.saving import saver

SAVES = 3


@pytest.fixture(autouse=True)
def as_before():
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.enable()


class Watched(Net):
    """Saves after each batch, and notes whether the collector is on in the user's hook of a checkpoint."""

    def __init__(self, **options: Any) -> None:
        super().__init__(save_interval=1, **options)
        self.is_on: list[bool] = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.is_on.append(gc.isenabled())
        super().on_save_checkpoint(checkpoint)


def fit(directory, module: L.LightningModule) -> None:
    L.Trainer(default_root_dir=directory, max_epochs=1, **QUIET).fit(module, loader(SAVES))


def collections_in_saves(directory, monkeypatch) -> list[int]:
    """The generations that were collected while a save captured the state."""
    collected: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and saving:
            collected.append(info["generation"])

    saving: list[bool] = []
    capture = saver.internals.dump

    def dump(*args: Any, **options: Any) -> Any:
        saving.append(True)
        try:
            return capture(*args, **options)
        finally:
            saving.clear()

    monkeypatch.setattr(saver.internals, "dump", dump)
    gc.callbacks.append(note)
    gc.set_threshold(1, 1, 1)  # at almost each object that is made
    try:
        fit(directory, Watched())
    finally:
        gc.callbacks.remove(note)
    return collected


def test_nothing_is_collected_while_a_state_is_captured(tmp_path, monkeypatch):
    assert collections_in_saves(tmp_path, monkeypatch) == []


def test_without_the_pause_a_capture_is_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(saver.Saver, "save", saver.Saver.save.__wrapped__)
    assert collections_in_saves(tmp_path, monkeypatch) != []


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_as_before_after_each_save(tmp_path, was_on):
    seen: list[bool] = []

    class Module(Watched):
        def on_train_batch_end(self, *args: Any) -> None:
            seen.append(gc.isenabled())

    module = Module()
    if not was_on:
        gc.disable()
    fit(tmp_path, module)
    assert module.is_on[:SAVES] == [False] * SAVES
    assert seen == [was_on] * SAVES
    assert gc.isenabled() == was_on


def test_it_is_on_again_after_an_error_in_a_save(tmp_path):
    class Failing(Watched):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            super().on_save_checkpoint(checkpoint)
            if len(self.is_on) == 1:  # the state is kept after the error
                raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        fit(tmp_path, Failing())
    assert gc.isenabled()
