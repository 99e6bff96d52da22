"""Manual optimisation: every step of this training is heard of, whoever makes the optimizer, and as long as it runs."""

from __future__ import annotations

import copy
import pickle
import signal
from typing import Any

import lightning as L
import pytest
import torch
from nets import Net, files, loader, trainer
from torch.nn import functional as F
from torch.optim import optimizer as torch_optimizer

from checkpointable import CheckpointableWarning
from checkpointable.catalog.info import read_info
from checkpointable.saving.save_task import SaveTask


class Manual(Net):
    """Steps by itself after every batch."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"monitor": None, "save_last": False, "save_last_k": -1, **options})
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.zero_grad()
        self.manual_backward(F.cross_entropy(self.layer(batch[0]), batch[1]))
        self.step(batch, batch_idx)

    def step(self, batch: Any, batch_idx: int) -> None:
        self.optimizers().step()


class Replacing(Manual):
    """Has its optimizers made anew after the first epoch, as Lightning shows for training in phases."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.trainer.strategy.setup_optimizers(self.trainer)


class OwnOptimizer(Manual):
    """From the third batch on, steps an optimizer that it has told nobody of."""

    def step(self, batch: Any, batch_idx: int) -> None:
        if batch_idx < 2:
            self.optimizers().step()
        else:
            torch.optim.SGD(self.layer.parameters(), lr=0.1).step()


class SearchingInputs(Manual):
    """Steps every third batch, and in all of them an optimizer that changes inputs."""

    def step(self, batch: Any, batch_idx: int) -> None:
        inputs = batch[0].clone().requires_grad_()
        F.cross_entropy(self.layer(inputs), batch[1]).backward()
        torch.optim.SGD([inputs], lr=0.1).step()
        if batch_idx % 3 == 2:
            self.optimizers().step()


def hooks() -> int:
    """How many have asked torch to be told of the steps of all optimizers."""
    return len(torch_optimizer._global_optimizer_post_hooks)


def test_optimizers_that_are_made_anew_are_heard_of(tmp_path):
    trainer(tmp_path, max_epochs=2).fit(Replacing(dirpath=tmp_path, save_interval=2), loader(5))
    assert files(tmp_path) == [f"epoch_{epoch}_batch_{batch}.ckpt" for epoch in (0, 1) for batch in (2, 4)]
    assert read_info(tmp_path / "epoch_1_batch_4.ckpt").step == 9


def test_optimizer_that_configure_optimizers_did_not_return_is_heard_of(tmp_path):
    trainer(tmp_path).fit(OwnOptimizer(dirpath=tmp_path, save_interval=2), loader(7))
    assert files(tmp_path) == [f"epoch_0_batch_{batch}.ckpt" for batch in (2, 4, 6)]
    assert read_info(tmp_path / "epoch_0_batch_6.ckpt").step == 6


def test_optimizer_of_something_else_is_not_counted(tmp_path):
    trainer(tmp_path).fit(SearchingInputs(dirpath=tmp_path, save_interval=1), loader(8))
    steps = {name: read_info(tmp_path / name).step for name in files(tmp_path)}
    assert steps["epoch_0_batch_6.ckpt"] == steps["epoch_0_batch_3.ckpt"] + 1
    assert "epoch_0_batch_4.ckpt" not in steps, "it is in a window"


def test_ctrl_c_stops_after_the_batch_though_optimizers_were_made_anew(tmp_path):
    class Pressing(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (1, 2):
                signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit):
            trainer(tmp_path, max_epochs=2, callbacks=[Pressing()]).fit(Replacing(dirpath=tmp_path), loader(6))
    finally:
        signal.signal(signal.SIGINT, before)
    assert files(tmp_path) == ["epoch_1_batch_3.ckpt"]


class Watching(L.Callback):
    """Notes how many ask to be told of steps, and raises at a batch if it is to."""

    def __init__(self, raises: bool = False) -> None:
        self.raises, self.seen = raises, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(hooks())
        if self.raises and batch_idx == 1:
            raise KeyError("stop")


def test_steps_are_listened_to_once_and_no_longer_than_the_training(tmp_path):
    before = hooks()
    net, watching = Manual(dirpath=tmp_path), Watching()
    for epochs in (1, 2):
        fitting = trainer(tmp_path, max_epochs=epochs, callbacks=[watching])
        fitting.fit(net, loader(3))
        assert hooks() == before
    assert set(watching.seen) == {before + 1}
    assert len(watching.seen) == 9


def test_steps_are_not_listened_to_after_an_exception(tmp_path):
    before, watching = hooks(), Watching(raises=True)
    with pytest.raises(KeyError, match="stop"):
        trainer(tmp_path, callbacks=[watching]).fit(Manual(dirpath=tmp_path), loader(3))
    assert (hooks(), watching.seen) == (before, [before + 1] * 2)


def test_steps_are_not_listened_to_in_automatic_optimisation(tmp_path):
    before, watching = hooks(), Watching()
    trainer(tmp_path, callbacks=[watching]).fit(Net(dirpath=tmp_path), loader(2))
    assert watching.seen == [before] * 2


@pytest.mark.parametrize("way", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copy_of_a_module_in_training_listens_to_nothing_and_leaves_the_original_to_listen(tmp_path, way):
    """Copies are made of what counts the steps: a module in a fit has its trainer in its pickle."""
    copies = []

    class Copying(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:
                before = hooks()
                run = pl_module._checkpointing
                copies.append(way(run))
                assert hooks() == before
                del copies[:]
                assert hooks() == before

    before = hooks()
    net = Manual(dirpath=tmp_path, save_interval=2)
    trainer(tmp_path, callbacks=[Copying()]).fit(net, loader(5))
    assert hooks() == before
    assert files(tmp_path) == ["epoch_0_batch_2.ckpt", "epoch_0_batch_4.ckpt"]
    assert read_info(tmp_path / "epoch_0_batch_4.ckpt").step == 4


class Keeping(Net):
    """Keeps its optimizer over several fits."""

    optimizer: Any = None

    def configure_optimizers(self) -> Any:
        self.optimizer = self.optimizer or super().configure_optimizers()
        return self.optimizer


@pytest.mark.parametrize("fails", [False, True])
def test_optimizer_that_the_user_keeps_has_no_hook_left_after_a_fit(tmp_path, fails):
    net = Keeping(dirpath=tmp_path, save_interval=2)
    for _ in range(2):
        if fails:
            with pytest.raises(ZeroDivisionError):
                trainer(tmp_path, callbacks=[Failing()]).fit(net, loader(3))
        else:
            trainer(tmp_path).fit(net, loader(3))
        assert len(net.optimizer._optimizer_step_pre_hooks) == 0


class Failing(L.Callback):
    def on_train_batch_end(self, *_: Any) -> None:
        raise ZeroDivisionError


def test_optimizers_are_watched_only_while_a_save_is_in_progress(tmp_path):
    seen = []

    class Looking(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            is_saving = pl_module._checkpointing.saver.in_progress is not None
            seen.append((batch_idx, is_saving, len(trainer.optimizers[0]._optimizer_step_pre_hooks)))

    net = Net(dirpath=tmp_path, save_interval=3, save_top_k=0)
    trainer(tmp_path, callbacks=[Looking()]).fit(net, loader(7))
    assert seen[:4] == [(0, False, 0), (1, False, 0), (2, False, 0), (3, True, 1)]
    assert all(hooks == is_saving for _, is_saving, hooks in seen)


class ManualLater(Manual):
    """Steps by itself from the start of the training on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = True

    def on_train_start(self) -> None:
        self.automatic_optimization = False


def test_steps_are_counted_where_the_module_turns_to_manual_optimisation_when_training_starts(tmp_path):
    net = ManualLater(dirpath=tmp_path, save_interval=None, every_n_train_steps=2)
    trainer(tmp_path).fit(net, loader(5))
    assert [read_info(tmp_path / name).step for name in files(tmp_path)] == [2, 4]


def test_optimizer_has_no_hook_left_where_the_last_save_fails(tmp_path, monkeypatch):
    def broken(task: Any) -> Any:
        raise RuntimeError("a bug")

    class Ending(L.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                monkeypatch.setattr(SaveTask, "run", broken)
                raise ZeroDivisionError

    net = Keeping(dirpath=tmp_path, save_interval=None)
    with pytest.warns(CheckpointableWarning, match="a bug"), pytest.raises(ZeroDivisionError):
        trainer(tmp_path, callbacks=[Ending()]).fit(net, loader(3))
    assert len(net.optimizer._optimizer_step_pre_hooks) == 0
