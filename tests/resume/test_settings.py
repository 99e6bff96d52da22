"""A script that changed between the runs: the changes are reported, and refused when strict."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from nets import Net, loader, trainer

from checkpointable import ResumeError

MIDDLE = {"save_interval": 2, "save_top_k": 0, "save_last_k": -1}
BEFORE = {"gradient_clip_val": 0.5, "accumulate_grad_batches": 2, "val_check_interval": 4, "limit_train_batches": 6}


class Scheduled(Net):
    """Has the given scheduler, or none."""

    def __init__(self, scheduler=None, optimizer=torch.optim.Adam, **options):
        super().__init__(**options)
        self.scheduler, self.optimizer = scheduler, optimizer

    def configure_optimizers(self):
        optimizer = self.optimizer(self.parameters(), lr=0.1)
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.scheduler(optimizer), "interval": "step"}}


def by_steps(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 3)


def by_powers(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def fit(net, where, ckpt_path=None, **options):
    """Train with validation; ``options`` override the trainer's arguments in ``BEFORE``."""
    trainer(where, **{**BEFORE, "num_sanity_val_steps": 0, **options}).fit(
        net, loader(6), loader(2), ckpt_path=ckpt_path
    )
    return net


@pytest.fixture
def path(tmp_path):
    """A file from the middle of an epoch of six batches."""
    fit(Scheduled(by_steps, dirpath=tmp_path / "a", **MIDDLE), tmp_path)
    return tmp_path / "a/epoch_0_batch_2.ckpt"


def reports(caplog):
    return [record.message for record in caplog.records if "resumes after" in record.message]


CHANGES = [
    ({"precision": "bf16-mixed"}, "precision: approximate (32-true when saved, bf16-mixed now)"),
    ({"gradient_clip_val": 0.1}, "gradient_clip_val: approximate (0.5 when saved, 0.1 now)"),
    ({"gradient_clip_val": None}, "gradient_clip_val: approximate (0.5 when saved, None now)"),
    ({"gradient_clip_algorithm": "value"}, "gradient_clip_algorithm: approximate (None when saved, "),
    ({"accumulate_grad_batches": 1}, "accumulate_grad_batches: approximate (2 when saved, 1 now)"),
    ({"val_check_interval": 3}, "val_check_interval: approximate (4 when saved, 3 now)"),
    ({"limit_train_batches": 5}, "limit_train_batches: approximate (6 when saved, 5 now)"),
]


@pytest.mark.parametrize(("change", "says"), CHANGES, ids=[next(iter(change)) for change, _ in CHANGES])
def test_changed_argument_is_approximate_and_refused_when_strict(tmp_path, caplog, path, change, says):
    with caplog.at_level("INFO"):
        fit(Scheduled(by_steps, dirpath=tmp_path / "b"), tmp_path, path, **change)
    assert len(reports(caplog)) == 1
    assert says in reports(caplog)[0]
    assert reports(caplog)[0].count("when saved") == 1, "and nothing else has changed"
    with pytest.raises(ResumeError, match="or restore what it was saved with") as caught:
        fit(Scheduled(by_steps, strict_resume=True, dirpath=tmp_path / "c"), tmp_path, path, **change)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("scheduler", "now"), [(by_powers, "ExponentialLR every 1 step"), (None, "none")], ids=["another", "none"]
)
@pytest.mark.filterwarnings("ignore:.*lr_scheduler")
def test_changed_scheduler_is_approximate_and_refused_when_strict(tmp_path, caplog, path, scheduler, now):
    says = f"lr_schedulers: approximate (StepLR every 1 step when saved, {now} now)"
    with pytest.raises(ResumeError) as caught:
        fit(Scheduled(scheduler, strict_resume=True, dirpath=tmp_path / "c"), tmp_path, path)
    assert says in str(caught.value)
    with caplog.at_level("INFO"):
        fit(Scheduled(scheduler, dirpath=tmp_path / "b"), tmp_path, path)
    assert says in reports(caplog)[0]


def test_scheduler_that_is_new_is_approximate(tmp_path, caplog):
    fit(Scheduled(dirpath=tmp_path / "a", **MIDDLE), tmp_path)
    with caplog.at_level("INFO"):
        fit(Scheduled(by_steps, dirpath=tmp_path / "b"), tmp_path, tmp_path / "a/epoch_0_batch_2.ckpt")
    assert "lr_schedulers: approximate (none when saved, StepLR every 1 step now)" in reports(caplog)[0]


@pytest.mark.parametrize("longer", [{}, {"max_epochs": 2}, {"max_steps": 50}, {"max_time": "00:01:00:00"}], ids=str)
def test_unchanged_arguments_are_exact_and_training_may_grow_longer(tmp_path, caplog, path, longer):
    with caplog.at_level("INFO"):
        fit(Scheduled(by_steps, strict_resume=True, dirpath=tmp_path / "b"), tmp_path, path, **longer)
    assert len(reports(caplog)) == 1
    assert reports(caplog)[0].endswith(f"from {path}: exact")


def test_number_that_is_only_written_in_another_way_is_exact(tmp_path, caplog):
    fit(Scheduled(dirpath=tmp_path / "a", **MIDDLE), tmp_path, gradient_clip_val=1)
    path = tmp_path / "a/epoch_0_batch_2.ckpt"
    with caplog.at_level("INFO"):
        fit(Scheduled(strict_resume=True, dirpath=tmp_path / "b"), tmp_path, path, gradient_clip_val=1.0)
    assert reports(caplog)[0].endswith(": exact")


@pytest.mark.parametrize(("now", "says"), [({0: 1, 1: 3}, "exact"), ({0: 1, 1: 2}, "accumulate_grad_batches: appr")])
def test_schedule_of_accumulation_is_compared_as_a_whole(tmp_path, caplog, now, says):
    def options(schedule):
        callbacks = [GradientAccumulationScheduler(schedule)]
        return {"max_epochs": 2, "accumulate_grad_batches": 1, "val_check_interval": 1.0, "callbacks": callbacks}

    fit(Scheduled(dirpath=tmp_path / "a", **MIDDLE), tmp_path, **options({0: 1, 1: 3}))
    with caplog.at_level("INFO"):
        fit(Scheduled(dirpath=tmp_path / "b"), tmp_path, tmp_path / "a/epoch_1_batch_3.ckpt", **options(now))
    assert f": {says}" in reports(caplog)[0]


def test_other_optimizer_is_refused_and_the_error_says_what_to_do(tmp_path, path):
    advice = (
        r"it holds the state of Adam, and configure_optimizers gives SGD\. Use the same optimizers again, or start a"
        r" new run from the weights: Scheduled\.load_from_checkpoint"
    )
    with pytest.raises(ResumeError, match=advice):
        fit(Scheduled(by_steps, torch.optim.SGD, dirpath=tmp_path / "b"), tmp_path, path)
