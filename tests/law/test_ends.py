"""The law at the end of a run: one that is started again after its last save ends as the uninterrupted one ended."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loops.fit_loop import _FitLoop
from nets import Net, files, loader, trainer

from checkpointable import latest
from checkpointable.lightning_internals.loops import _ObservedFitLoop

ENDS = {"epochs": {"max_epochs": 2}, "inside an epoch": {"max_epochs": 3, "max_steps": 6}}
KINDS = {
    "last": {},
    "epoch": {"every_n_epochs": 1, "save_last": False, "save_top_k": 0},
    "best": {"save_last": False},
}


class Hooks(L.Callback):
    """Records the hooks of the end."""

    def __init__(self):
        self.called = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.called.append(("epoch end", trainer.current_epoch, torch.rand(1).item()))

    def on_train_end(self, trainer, pl_module):
        self.called.append(("train end", trainer.current_epoch, trainer.global_step, torch.rand(1).item()))

    def on_fit_end(self, trainer, pl_module):
        self.called.append(("fit end", trainer.current_epoch))


class Ending(Net):
    def __init__(self, **options):
        super().__init__(**{"strict_resume": True, **options})

    def on_train_end(self):
        self.ended = torch.rand(1).item()


def run(where, ends, options, *, ckpt_path=None):
    """Train, or run the same script again; how it ended, and the hooks of the end."""
    hooks, net = Hooks(), Ending(dirpath=where, **options)
    own = trainer(where, callbacks=[EMAWeightAveraging(decay=0.5), hooks], **ENDS[ends])
    own.fit(net, loader(4, shuffle=True), loader(1), ckpt_path=ckpt_path)
    metrics = {name: float(value) for name, value in own.callback_metrics.items()}
    counts = own.current_epoch, own.global_step, own.should_stop
    return [net.layer.weight.tolist(), net.ended, counts, metrics, torch.rand(1).item()], hooks.called


@pytest.mark.parametrize(("ends", "kind"), [("epochs", kind) for kind in KINDS] + [("inside an epoch", "last")])
def test_finished_run_that_is_started_again_ends_as_it_had_ended(tmp_path, ends, kind):
    torch.manual_seed(1)
    ended, hooks = run(tmp_path / "a", ends, KINDS[kind])
    there = {name: (tmp_path / "a" / name).stat().st_mtime_ns for name in files(tmp_path / "a")}
    for seed in (2, 3):
        torch.manual_seed(seed)
        again, hooks_again = run(tmp_path / "a", ends, KINDS[kind], ckpt_path=latest(tmp_path))
        assert again == ended
        assert hooks_again == hooks[-len(hooks_again) :]
        assert len(hooks_again) == (2 if ends == "epochs" else 3)
    assert {name: (tmp_path / "a" / name).stat().st_mtime_ns for name in files(tmp_path / "a")} == there


@pytest.mark.parametrize("ends", ENDS)
def test_finished_run_that_is_started_again_ends_otherwise_without_its_last_hooks(tmp_path, monkeypatch, ends):
    """The twin: Lightning skips a run with nothing left to train."""
    torch.manual_seed(1)
    ended, _ = run(tmp_path / "a", ends, {})
    monkeypatch.setattr(Ending, "ended", ended[1], raising=False)
    monkeypatch.setattr(_ObservedFitLoop, "skip", _FitLoop.skip)
    monkeypatch.setattr(_ObservedFitLoop, "done", _FitLoop.done)
    again, hooks = run(tmp_path / "a", ends, {}, ckpt_path=latest(tmp_path))
    assert again[0] != ended[0]
    assert [name for name, *_ in hooks] == ["fit end"]


def test_epoch_that_ended_early_is_not_ended_without_the_loop_that_ends_it(tmp_path, monkeypatch):
    """The twin."""
    torch.manual_seed(1)
    ended, hooks = run(tmp_path / "a", "inside an epoch", {})
    monkeypatch.setattr(_ObservedFitLoop, "_has_only_to_end_the_epoch", lambda loop: False)
    again, hooks_again = run(tmp_path / "a", "inside an epoch", {}, ckpt_path=latest(tmp_path))
    assert again != ended
    assert hooks_again != hooks[-3:]


def test_finished_run_of_a_trainer_is_trained_further_by_its_next_fit(tmp_path):
    """The state of a restart that no epoch has taken up does not stay behind."""
    ends = []
    for name in ("straight", "again"):
        torch.manual_seed(1)
        own, net = trainer(tmp_path, max_epochs=1), Net(dirpath=tmp_path / name, save_top_k=-1, save_last_k=-1)
        own.fit(net, loader(4, shuffle=True), loader(1))
        if name == "again":
            own, net = trainer(tmp_path, max_epochs=1), Net(dirpath=tmp_path / name)
            own.fit(net, loader(4, shuffle=True), loader(1), ckpt_path=latest(tmp_path / name))
        own.fit_loop.max_epochs = 2
        own.fit(net, loader(4, shuffle=True), loader(1))
        ends.append((net.layer.weight.tolist(), own.current_epoch, own.global_step, torch.rand(1).item()))
    assert ends[0] == ends[1]
