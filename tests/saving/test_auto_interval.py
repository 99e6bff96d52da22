"""``save_interval="auto"`` in a real training: it saves, it says so once, and it changes no number."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from nets import MixedNet, Net, files, loader, trainer

from checkpointable.catalog.scan import infos
from checkpointable.policy.auto_interval import Auto
from checkpointable.saving.due import Due

ALL = {"save_interval": "auto", "save_last_k": -1, "save_top_k": 0, "save_last": False}
SAID = r"checkpointable: saving every (\d+) batches: \d+\.\d % of training time"


@pytest.fixture
def clock(monkeypatch):
    """For the decision alone every batch takes a tenth of a second, and every save costs six such batches' budget.

    The files are real. Gives what was measured in truth.
    """
    measured: dict[str, list[Any]] = {"batches": [], "saves": []}
    note_batch, note_save = Auto.note_batch, Auto.note_save

    def batch(auto: Auto, seconds: float, *, writing: bool) -> None:
        measured["batches"].append(seconds)
        note_batch(auto, 0.1, writing=writing)

    def save(auto: Auto, *, blocked: float, busy: float) -> None:
        measured["saves"].append((blocked, busy))
        note_save(auto, blocked=0.0059, busy=0.05)

    monkeypatch.setattr(Auto, "note_batch", batch)
    monkeypatch.setattr(Auto, "note_save", save)
    return measured


@pytest.fixture
def quick_disk(monkeypatch):
    """The file is there at the safe point after the next batch, however busy the machine."""
    original = Due.after_batch

    def waiting(due: Due, *positions: Any) -> None:
        due.measured._saver._writer.wait()
        original(due, *positions)

    monkeypatch.setattr(Due, "after_batch", waiting)


def saved(directory: Path) -> dict[int, set[str]]:
    """The batches after which there is a file, counted over the epochs, and why."""
    return {info.batches: set(info.reasons) for info in sorted(infos(directory), key=lambda info: info.batches)}


def said(caplog: pytest.LogCaptureFixture) -> list[int]:
    found = (re.fullmatch(SAID, record.getMessage()) for record in caplog.records)
    return [int(match[1]) for match in found if match]


def test_auto_saves_after_the_first_batch_and_then_at_its_interval(tmp_path, clock, quick_disk):
    trainer(tmp_path).fit(Net(dirpath=tmp_path, **ALL), loader(30))
    assert saved(tmp_path) == {batch: {"interval"} for batch in (1, 7, 13, 19, 25)}


def test_auto_counts_over_the_epochs(tmp_path, clock, quick_disk):
    trainer(tmp_path, max_epochs=4).fit(Net(dirpath=tmp_path, **ALL), loader(9))
    assert list(saved(tmp_path)) == [1, 7, 13, 19, 25, 31]


def test_auto_measures_every_batch_and_every_save(tmp_path, clock, quick_disk):
    trainer(tmp_path).fit(Net(dirpath=tmp_path, **ALL), loader(9))
    assert len(clock["batches"]) == 9
    assert all(seconds > 0 for seconds in clock["batches"])
    assert len(clock["saves"]) == len(saved(tmp_path))
    assert all(blocked > 0 and busy > 0 for blocked, busy in clock["saves"])


def test_auto_says_one_line(tmp_path, caplog, clock, quick_disk):
    with caplog.at_level("INFO"):
        trainer(tmp_path, max_epochs=2).fit(Net(dirpath=tmp_path, **ALL), loader(20))
    assert said(caplog) == [6]


def test_auto_by_the_real_clock_saves_and_says_so(tmp_path, caplog, quick_disk):
    with caplog.at_level("INFO"):
        trainer(tmp_path, max_epochs=3).fit(Net(dirpath=tmp_path, **ALL), loader(40))
    assert next(iter(saved(tmp_path))) == 1
    assert said(caplog) != []


class Timed(MixedNet):
    """By its own clock a batch takes a tenth of a second, from the twentieth on a hundred times as long."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.now = 0.0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.now += 0.1 if batch_idx < 20 else 10.0
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.now += 3600.0


@pytest.mark.parametrize("validations", [0, 3])
def test_auto_with_slower_batches_saves_by_the_seconds_trained(tmp_path, monkeypatch, quick_disk, validations):
    """No batch is held back by those that were quicker, and an hour between two batches makes nothing due."""
    net, note_save = Timed(dirpath=tmp_path, **ALL), Auto.note_save
    for module in ("due", "saver"):  # the time in which a busy machine waits for a save is none of a batch
        monkeypatch.setattr(f"checkpointable.saving.{module}.time", SimpleNamespace(monotonic=lambda: net.now))
    monkeypatch.setattr(Auto, "note_save", lambda auto, **_: note_save(auto, blocked=0.0119, busy=0.05))
    trainer(tmp_path, val_check_interval=3, limit_val_batches=validations).fit(net, loader(30), loader(3))
    assert list(saved(tmp_path))[:3] == [1, 13, 21]
    assert all(later - earlier <= 2 for earlier, later in itertools.pairwise(list(saved(tmp_path))[3:]))


@pytest.mark.parametrize("asynchronous", [True, False])
def test_auto_keeps_the_last_state(tmp_path, asynchronous):
    net = Net(dirpath=tmp_path, save_interval="auto", async_save=asynchronous, save_top_k=0)
    trainer(tmp_path).fit(net, loader(12))
    assert files(tmp_path) == ["epoch_0_batch_12.ckpt"]


class Noisy(MixedNet):
    """Draws random numbers in every batch, and notes every loss."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.layer = torch.nn.Sequential(torch.nn.Linear(2, 300), torch.nn.Dropout(0.5), torch.nn.Linear(300, 2))
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def test_saving_at_any_interval_or_never_changes_no_number_of_the_training(tmp_path):
    kinds: list[dict[str, Any]] = [
        {"save_interval": None, "save_last": False, "save_top_k": 0, "save_on_exception": False},
        {"save_interval": "auto", "overhead_budget": 0.9},
        {"save_interval": "auto", "overhead_budget": 0.9, "async_save": False},
        {"save_interval": 1},
        {"save_interval": 1, "save_last_k": -1, "save_top_k": 2},
    ]
    nets = []
    for number, options in enumerate(kinds):
        L.seed_everything(3, verbose=False)
        net = Noisy(dirpath=tmp_path / str(number), **options)
        trainer(tmp_path, max_epochs=2).fit(net, loader(8, shuffle=True), loader(2))
        nets.append(net)
    assert files(tmp_path / "0") == []
    for net in nets[1:]:
        assert net.losses == nets[0].losses
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), nets[0].parameters(), strict=True))


class Changing(L.Callback):
    """Sets the interval in the middle of a training."""

    def __init__(self, intervals: dict[int, Any]) -> None:
        self.intervals = intervals

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx in self.intervals:
            pl_module.save_interval = self.intervals[batch_idx]


def test_interval_set_while_training_takes_effect_and_auto_again(tmp_path, clock, quick_disk):
    net = Net(dirpath=tmp_path, **ALL)
    trainer(tmp_path, callbacks=[Changing({8: 7, 22: "auto"})]).fit(net, loader(40))
    assert list(saved(tmp_path)) == [1, 7, 14, 21, 27, 33, 39]
    assert net.save_interval == "auto"


def test_auto_set_while_training_is_found_out_then(tmp_path, clock, quick_disk):
    net = Net(dirpath=tmp_path, **{**ALL, "save_interval": 7})
    trainer(tmp_path, callbacks=[Changing({9: "auto"})]).fit(net, loader(30))
    assert list(saved(tmp_path)) == [7, 10, 16, 22, 28]


def test_never_set_while_training_ends_the_saving(tmp_path, clock, quick_disk):
    net = Net(dirpath=tmp_path, **ALL)
    trainer(tmp_path, callbacks=[Changing({9: None})]).fit(net, loader(30))
    assert list(saved(tmp_path)) == [1, 7]


def test_steps_together_with_auto_both_save(tmp_path, clock, quick_disk):
    trainer(tmp_path).fit(Net(dirpath=tmp_path, every_n_train_steps=4, **ALL), loader(20))
    found = saved(tmp_path)
    assert [batch for batch, reasons in found.items() if "step" in reasons] == [4, 8, 12, 16, 20]
    assert found[1] == {"interval"}
    assert all(later - earlier <= 6 for earlier, later in itertools.pairwise(found))


def test_epochs_together_with_auto_both_save(tmp_path, clock, quick_disk):
    trainer(tmp_path, max_epochs=3).fit(Net(dirpath=tmp_path, every_n_epochs=1, **ALL), loader(5))
    found = saved(tmp_path)
    assert [batch for batch, reasons in found.items() if "epoch" in reasons] == [5, 10, 15]
    assert found[1] == {"interval"}


def test_auto_where_no_newest_is_kept_saves_none(tmp_path, clock, quick_disk):
    trainer(tmp_path).fit(Net(dirpath=tmp_path, **{**ALL, "save_last_k": 0}), loader(12))
    assert files(tmp_path) == []


def test_auto_in_a_second_fit_starts_anew(tmp_path, clock, quick_disk):
    net = Net(dirpath=tmp_path, **ALL)
    trainer(tmp_path).fit(net, loader(3))
    trainer(tmp_path).fit(net, loader(3))
    assert files(tmp_path) == ["epoch_0_batch_1-v1.ckpt", "epoch_0_batch_1.ckpt"]
