"""The law where a finder of a learning rate or a batch size trains on trial inside the fit."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from nets import QUIET, Net, PlainNet, files, loader, trainer
from torch.utils.data import DataLoader

from checkpointable import CheckpointableWarning, CheckpointingMixin, Checkpoints, ResumeError, latest
from checkpointable.catalog.info import read_info
from checkpointable.lightning_internals import finders
from checkpointable.saving import run_state


class Data(L.LightningDataModule):
    batch_size = 2

    def train_dataloader(self):
        return DataLoader(loader(12).dataset, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return loader(1)


class Seeing(Net):
    """Records its samples."""

    def __init__(self, **options):
        super().__init__(
            **{"save_interval": 3, "every_n_epochs": 1, "save_last_k": -1, "strict_resume": True, **options}
        )
        self.seen = []

    def compute_loss(self, batch, batch_idx):
        if self.training:
            self.seen.append(batch[0].tolist())
        return super().compute_loss(batch, batch_idx)


def rate_finder():
    return LearningRateFinder(num_training_steps=20, early_stop_threshold=None)


def size_finder():
    return BatchSizeFinder(max_trials=2, steps_per_trial=2, init_val=3)


FINDERS = pytest.mark.parametrize("make", [rate_finder, size_finder])


def fit(where, make, *, seed, ckpt_path=None):
    """Train two epochs; what the module has seen, and what it ended with."""
    torch.manual_seed(seed)
    net, data, finder = Seeing(dirpath=where), Data(), make()
    trainer(where, max_epochs=2, callbacks=[finder]).fit(net, datamodule=data, ckpt_path=ckpt_path)
    weights = [weight.tolist() for weight in net.parameters()]
    size = getattr(finder, "optimal_batch_size", None)
    return net.seen, [weights, net.learning_rate, data.batch_size, size, net.best_val_loss, torch.rand(1).item()]


@FINDERS
def test_run_with_a_finder_resumes_exactly_with_what_it_has_found(tmp_path, make):
    straight, ended = fit(tmp_path / "straight", make, seed=1)
    found = Checkpoints(tmp_path / "straight")
    for number, info in enumerate(found[:: -max(len(found) // 4, 1)]):
        resumed, ended_too = fit(tmp_path / str(number), make, seed=100 + number, ckpt_path=info.path)
        assert info.exactness == "exact"
        assert resumed == (straight[-len(resumed) :] if resumed else [])
        assert ended_too == ended
    assert number >= 3


@FINDERS
def test_run_with_a_finder_cannot_be_resumed_where_its_trials_are_heard(tmp_path, monkeypatch, make):
    """The twin."""
    monkeypatch.setattr(finders, "observe", lambda trainer: None)

    def killed_and_resumed():
        fit(tmp_path / "straight", make, seed=1)
        fit(tmp_path / "again", make, seed=100, ckpt_path=latest(tmp_path))

    with pytest.raises((ResumeError, CheckpointableWarning)):  # or the file is gone when its history is read
        killed_and_resumed()


class Scheduled(Seeing):
    """Its schedule keeps the rate with which it was made, and not the one that is found."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), self.learning_rate)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class AtTrainStart(LearningRateFinder):
    """Tries in another hook that a resume passes again."""

    def on_fit_start(self, trainer, pl_module):
        pass

    def on_train_start(self, trainer, pl_module):
        self.lr_find(trainer, pl_module)


def of_class(kind):
    return lambda: kind(num_training_steps=20, early_stop_threshold=None)


SCHEDULED = pytest.mark.parametrize("make", [rate_finder, of_class(AtTrainStart)], ids=["fit", "train"])


@SCHEDULED
def test_rate_is_found_once_and_is_no_difference_between_script_and_file(tmp_path, monkeypatch, make):
    monkeypatch.setitem(globals(), "Seeing", Scheduled)
    straight, ended = fit(tmp_path / "straight", make, seed=1)
    path = tmp_path / "straight/epoch_0_batch_9.ckpt"
    assert read_info(path).exactness == "exact"
    resumed, ended_too = fit(tmp_path / "resumed", make, seed=100, ckpt_path=path)
    assert (resumed, ended_too) == (straight[-len(resumed) :], ended)


def test_rate_that_is_found_differs_where_it_is_restored_before_the_optimizer_is_made(tmp_path, monkeypatch):
    """The twin."""

    def take(session, trainer, *args):
        take_state(session, trainer, *args)
        for callback in trainer.callbacks:
            if isinstance(callback, LearningRateFinder):
                finders._restore_found(trainer, callback)

    take_state = run_state.take
    monkeypatch.setitem(globals(), "Seeing", Scheduled)
    monkeypatch.setattr(run_state, "take", take)
    fit(tmp_path / "straight", rate_finder, seed=1)
    with pytest.raises(ResumeError, match="learning rate"):
        fit(tmp_path / "resumed", rate_finder, seed=100, ckpt_path=tmp_path / "straight/epoch_0_batch_9.ckpt")


class Milestones(BatchSizeFinder):
    """Tries at the start of the second epoch."""

    def on_fit_start(self, trainer, pl_module):
        pass

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.scale_batch_size(trainer, pl_module)


def milestones():
    return Milestones(max_trials=2, steps_per_trial=2, init_val=3)


def after_the_first_epoch(where):
    return next(info for info in Checkpoints(where) if (info.epoch, info.batch) == (0, 24))


def test_finder_that_may_try_before_the_next_batch_is_approximate(tmp_path):
    fit(tmp_path / "straight", milestones, seed=1)
    info, inside = after_the_first_epoch(tmp_path / "straight"), read_info(tmp_path / "straight/epoch_0_batch_21.ckpt")
    says = "Milestones: approximate (it may train on trial before the next batch, and that is not repeated exactly)"
    assert (inside.exactness, info.exactness) == ("exact", says)
    with pytest.raises(ResumeError, match="Milestones: approximate"):
        fit(tmp_path / "resumed", milestones, seed=100, ckpt_path=info.path)


def test_trial_before_the_next_batch_is_not_repeated_exactly(tmp_path, monkeypatch):
    """The twin: without the verdict, another trial is called exact."""
    monkeypatch.setattr(finders, "tries_before", lambda callback, ended: False)
    straight = fit(tmp_path / "straight", milestones, seed=1)
    path = after_the_first_epoch(tmp_path / "straight").path
    resumed = fit(tmp_path / "resumed", milestones, seed=100, ckpt_path=path)
    assert resumed[1] != straight[1]


class PlainSeeing(PlainNet):
    """The same in plain Lightning."""

    def __init__(self):
        super().__init__()
        self.learning_rate, self.seen = 0.1, []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0].tolist())
        return super().training_step(batch, batch_idx)


class MixedSeeing(CheckpointingMixin, PlainSeeing):
    pass


@FINDERS
def test_finder_gives_the_directory_and_the_numbers_of_plain_lightning(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    ends = []
    for net in (PlainSeeing, MixedSeeing):
        torch.manual_seed(1)
        own = L.Trainer(**{**QUIET, "logger": True}, max_epochs=2, callbacks=[make()], log_every_n_steps=1)
        model = net()
        own.fit(model, datamodule=Data())
        ends.append((model.seen, model.layer.weight.tolist(), model.learning_rate, torch.rand(1).item()))
        assert files(Path(own.log_dir)) == files(tmp_path / f"lightning_logs/version_{len(ends) - 1}") != []
    assert ends[0] == ends[1]
    assert [path.name for path in Path().iterdir()] == ["lightning_logs"]
    assert latest("lightning_logs") is not None


def test_trial_does_not_count_as_a_validation_or_a_batch_of_the_run(tmp_path):
    class Noting(L.Callback):
        def on_train_start(self, trainer, pl_module):
            self.seen = pl_module.best_val_loss, trainer.ckpt_path, pl_module._checkpointing.progress.position.batches

    noting = Noting()
    own = trainer(tmp_path, callbacks=[rate_finder(), noting], num_sanity_val_steps=0)
    own.fit(Seeing(dirpath=tmp_path), datamodule=Data())
    assert noting.seen == (float("inf"), None, 0)
