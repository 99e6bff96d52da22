"""The cost of saving goes to the loggers if the user asks for it, and changes nothing else."""

from __future__ import annotations

import csv
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyLogger
from nets import Net, loader, trainer

from checkpointable import latest
from checkpointable.catalog.history import read_history
from checkpointable.lightning_internals import loops

NAMES = {"save/blocked_seconds", "save/write_seconds", "save/size_bytes"}


class Noting(DummyLogger):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def log_metrics(self, metrics, step=None):
        self.given.append((step, dict(metrics)))

    def after_save_checkpoint(self, checkpoint_callback):
        pass

    @property
    def save_dir(self):
        return "."


def costs(logger):
    return [(step, metrics) for step, metrics in logger.given if "save/size_bytes" in metrics]


def fit(root, net, *, logger, **options):
    own = trainer(root, **{"max_epochs": 2, "logger": logger, "log_every_n_steps": 1, **options})
    own.fit(net, loader(4, shuffle=True), loader(2))
    return own


def test_each_save_gives_its_cost_at_the_step_where_it_was_done(tmp_path):
    first, second = Noting(), Noting()
    fit(tmp_path, Net(dirpath=tmp_path, save_interval=3, async_save=False, log_save_cost=True), logger=[first, second])
    found = costs(first)
    assert [step for step, _ in found] == [3, 4, 7, 8]
    assert all(metrics.keys() == NAMES for _, metrics in found)
    saves = read_history(latest(tmp_path)).saves
    assert [metrics["save/size_bytes"] for _, metrics in found][:3] == [it.size_bytes for it in saves]
    assert [metrics["save/write_seconds"] for _, metrics in found][:3] == [it.write_seconds for it in saves]
    assert all(value > 0 for _, metrics in found for value in metrics.values())
    assert costs(second) == found


def test_nothing_is_logged_unless_it_is_asked_for(tmp_path):
    logger = Noting()
    fit(tmp_path, Net(dirpath=tmp_path, save_interval=3), logger=logger)
    assert costs(logger) == []


@pytest.mark.parametrize("async_save", [True, False])
def test_training_and_what_it_logs_are_the_same_with_the_cost_and_without(tmp_path, async_save):
    runs = []
    for logs in (False, True):
        L.seed_everything(1, verbose=False)
        logger, where = Noting(), tmp_path / str(logs)
        net = Net(dirpath=where, save_interval=2, async_save=async_save, log_save_cost=logs)
        own = fit(where, net, logger=logger)
        others = [(step, metrics) for step, metrics in logger.given if not NAMES & metrics.keys()]
        runs.append(
            (net.layer.weight.tolist(), others, own.callback_metrics, own.logged_metrics, torch.rand(3).tolist())
        )
        saved = torch.load(latest(where), weights_only=True)
        assert not any("save/" in name for name in saved["checkpointable"]["metadata"]["metrics"])
    assert runs[0] == runs[1]


def test_cost_that_a_module_logs_would_be_among_what_callbacks_see(tmp_path, monkeypatch):
    """The twin."""

    def log(trainer, metrics):
        trainer._logger_connector._callback_metrics.update({name: torch.tensor(it) for name, it in metrics.items()})

    monkeypatch.setattr(loops, "log_at_present_step", log)
    own = fit(tmp_path, Net(dirpath=tmp_path, save_interval=2, log_save_cost=True), logger=Noting())
    assert own.callback_metrics.keys() >= NAMES


def test_csv_file_has_the_costs_beside_the_other_values(tmp_path):
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    fit(tmp_path, Net(save_interval=3, log_save_cost=True, async_save=False), logger=logger)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    sizes = {int(row["step"]): float(row["save/size_bytes"]) for row in rows if row["save/size_bytes"]}
    assert list(sizes) == [3, 4, 7, 8]
    assert all(size > 10_000 for size in sizes.values())
    assert sum(bool(row["val_loss"]) for row in rows) == 2


def test_save_that_fails_has_no_cost(tmp_path):
    (tmp_path / "epoch_0_batch_3").write_text("in the way of a directory")
    logger = Noting()
    names = "epoch_{epoch}_batch_{batch}/x"
    net = Net(dirpath=tmp_path, save_interval=3, save_top_k=0, filename=names, log_save_cost=True)
    with pytest.warns(match="was not saved"):
        fit(tmp_path, net, logger=logger, max_epochs=1)
    assert [step for step, _ in costs(logger)] == [4]
