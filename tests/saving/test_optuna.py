"""Trials of Optuna, with the callback of the example: what a trial knows, and what is said where it is pruned."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import optuna
import pytest
from nets import Scripted, loader, trainer

from checkpointable.saving import failures
from checkpointable.storage.format import checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples/optuna_sweep.py"


@pytest.fixture(scope="module")
def report():
    """The callback of the example."""
    spec = importlib.util.spec_from_file_location("optuna_sweep", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    quiet = logging.getLogger("lightning.pytorch").level
    spec.loader.exec_module(example)
    logging.getLogger("lightning.pytorch").setLevel(quiet)
    return example.ReportToOptuna


def run(where, report, values, pruner):
    study = optuna.create_study(pruner=pruner)
    trial = study.ask()
    net = Scripted(values, dirpath=where, every_n_epochs=1)
    fit = trainer(where, max_epochs=len(values), callbacks=[report(trial, "score")])
    return study, trial, lambda: fit.fit(net, loader(4), loader(1))


def test_trial_of_optuna_knows_durable_checkpoints_and_each_value(tmp_path, report):
    study, trial, fit = run(tmp_path, report, [3.0, 1.0, 2.0], optuna.pruners.NopPruner())
    fit()
    assert {Path(path).name for path in trial.user_attrs.values()} == {
        "best_score_epoch_1.ckpt",
        "epoch_2_batch_4.ckpt",
    }
    assert [checkpoint.problem(path) for path in trial.user_attrs.values()] == [None, None]
    assert study.trials[0].intermediate_values == {0: 3.0, 1: 1.0, 2: 2.0}


def pruned(where, report, caplog):
    """What is said by a fit whose trial is pruned."""
    _, _, fit = run(where, report, [3.0, 9.0], optuna.pruners.ThresholdPruner(upper=5.0))
    with caplog.at_level(logging.INFO), pytest.raises(optuna.TrialPruned):
        fit()
    return [record.message for record in caplog.records if "Resume from" in record.message]


def test_trial_that_is_pruned_says_nothing_of_resuming(tmp_path, report, caplog):
    assert pruned(tmp_path, report, caplog) == []


def test_trial_that_is_pruned_would_say_it_where_it_counts_as_failed(tmp_path, report, caplog, monkeypatch):
    """The twin."""
    monkeypatch.setattr(failures, "_is_pruned", lambda exception: False)
    (said,) = pruned(tmp_path, report, caplog)
    assert "TrialPruned after epoch" in said
