"""For the tests of copies that are made while training goes on: a copy that is held up, and what is in the files."""

from __future__ import annotations

import ctypes
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from nets import Net, files, load, loader, trainer

from checkpointable.saving.saver import Saver
from checkpointable.saving.session import Session
from checkpointable.storage.staging import copies, host_copy, unowned
from checkpointable.storage.staging.snapshot import Snapshot
from checkpointable.storage.writer import Writer

WIDTH = 160  # a square of these is more than what is copied at once


class Gate:
    """Holds every copy in the background, but the first one of a save, until training waits for it or for the file.

    So a change that nobody waits with comes before the copy, on any machine.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.copied: list[tuple[bool, int]] = []
        self._is_first = True
        self._before(patch, Snapshot, "__init__", self.close)
        self._before(patch, Snapshot, "wait_for_staging", self.opened.set)
        self._before(patch, Writer, "take", self.opened.set)
        for module in (copies, host_copy):
            patch.setattr(module, "ctypes", types.SimpleNamespace(**{**vars(ctypes), "memmove": self.memmove}))
        patch.setattr(unowned, "copy", self.copy)

    def close(self) -> None:
        self.opened.clear()
        self._is_first = True

    def memmove(self, target: int, source: int, size: int) -> None:
        at_once = threading.current_thread() is threading.main_thread()
        if not at_once and not self._is_first:
            assert self.opened.wait(300)
        self._is_first &= at_once
        self.copied.append((at_once, size))
        ctypes.memmove(target, source, size)

    def copy(self, target: int, source: int, size: int) -> bool:
        self.memmove(target, source, size)
        return True

    def _before(self, patch: pytest.MonkeyPatch, cls: type, name: str, first: Callable[[], None]) -> None:
        original = getattr(cls, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            first()
            return original(*args, **kwargs)

        patch.setattr(cls, name, call)


def note_states(patch: pytest.MonkeyPatch) -> dict[int, Any]:
    """The state at each safe point, by batches done."""
    states: dict[int, Any] = {}
    original = Session.save

    def noting(session: Session, trainer: L.Trainer, **options: Any) -> None:
        module = trainer.lightning_module
        optimizers = [optimizer.state_dict() for optimizer in trainer.strategy.optimizers]
        state = {"state_dict": module.state_dict(), "optimizer_states": optimizers}
        states.setdefault(session.progress.position.batches, clone(state))
        original(session, trainer, **options)

    patch.setattr(Session, "save", noting)
    return states


def clone(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    return [clone(item) for item in value] if isinstance(value, (list, tuple)) else value


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [item for key in value for item in flat(value[key])]
    return [item for one in value for item in flat(one)] if isinstance(value, (list, tuple)) else [value]


def same(one: Any, other: Any) -> bool:
    pairs = zip(flat(one), flat(other), strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def torn(directory: Path, truth: dict[int, Any]) -> list[str]:
    """The files that are not the state of their safe point."""
    wrong = []
    for name in files(directory):
        saved = load(directory / name)
        expected = truth[saved["checkpointable"]["position"]["batches"]]
        if not all(same(saved[part], expected[part]) for part in expected):
            wrong.append(name)
    return wrong


class Wide(Net):
    """Large enough that its weights and the state of its optimizer are copied in the background."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"save_interval": 1, "save_last_k": -1, "save_top_k": 0, **options})
        self.layer = torch.nn.Sequential(
            torch.nn.Linear(2, WIDTH),
            torch.nn.Linear(WIDTH, WIDTH),
            torch.nn.Linear(WIDTH, WIDTH),
            torch.nn.BatchNorm1d(WIDTH),
            torch.nn.Linear(WIDTH, 2),
        )

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def fit(net: Wide, root: Path, **options: Any) -> None:
    if "callbacks" in options:
        options["callbacks"] = [options["callbacks"]()]
    own = trainer(root, num_sanity_val_steps=0, **options)
    own.fit(net, loader(5), loader(1))


def without_the_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Saver, "wait_for_staging", lambda saver: None)


def without_the_detection(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(host_copy.HostCopy, "is_unchanged", lambda copy: True)
