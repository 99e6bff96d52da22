"""A run in MLflow that is resumed: what the service keeps, and when it gets a run of its own."""

from __future__ import annotations

import logging

import pytest
from lightning.pytorch.loggers import MLFlowLogger
from nets import Net, loader, trainer

from checkpointable import latest
from checkpointable.lightning_internals import mlflow_log

pytestmark = pytest.mark.filterwarnings("ignore:.*loader strategy is deprecated")  # MLflow, on this SQLAlchemy


def fit(root, logger, ckpt_path=None, epochs=1):
    made = trainer(root, logger=logger, max_epochs=epochs, log_every_n_steps=1)
    made.fit(Net(dirpath=root / "files", save_interval=2, save_last_k=-1), loader(4), ckpt_path=ckpt_path)
    return logger


def mlflow_logger(root, **options):
    return MLFlowLogger(tracking_uri=f"sqlite:///{root}/mlflow.db", artifact_location=f"{root}/artifacts", **options)


@pytest.fixture
def mlflow_run(tmp_path):
    """A run of one epoch in MLflow."""
    return fit(tmp_path, mlflow_logger(tmp_path))


def test_mlflow_keeps_the_parameters_that_the_run_began_with_and_says_so(tmp_path, mlflow_run, caplog):
    mlflow_run.log_hyperparams({"width": 8})
    resumed = fit(tmp_path, mlflow_logger(tmp_path), ckpt_path=latest(tmp_path), epochs=2)
    with caplog.at_level(logging.INFO):
        resumed.log_hyperparams({"width": 9, "depth": 2})
    assert resumed.run_id == mlflow_run.run_id
    assert resumed.experiment.get_run(resumed.run_id).data.params == {"width": "8", "depth": "2"}
    assert "MLflow keeps the parameters that a run began with: width (8, now 9)." in caplog.text


def test_mlflow_run_that_was_deleted_or_is_of_another_experiment_is_not_gone_on_with(tmp_path, mlflow_run):
    other = fit(tmp_path, mlflow_logger(tmp_path, experiment_name="b"), ckpt_path=latest(tmp_path), epochs=2)
    assert other.run_id != mlflow_run.run_id
    other.experiment.delete_run(other.run_id)
    last = fit(tmp_path, mlflow_logger(tmp_path, experiment_name="b"), ckpt_path=latest(tmp_path), epochs=3)
    assert last.run_id not in (other.run_id, mlflow_run.run_id)


def test_mlflow_store_that_has_not_got_the_run_gets_a_new_one(tmp_path, mlflow_run):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert fit(tmp_path, mlflow_logger(elsewhere), ckpt_path=latest(tmp_path), epochs=2).run_id != mlflow_run.run_id


def test_branch_in_mlflow_has_a_run_of_its_own(tmp_path, mlflow_run):
    older = next(tmp_path.rglob("epoch_0_batch_2.ckpt"))
    assert fit(tmp_path, mlflow_logger(tmp_path), ckpt_path=str(older)).run_id != mlflow_run.run_id


def test_branch_that_logs_to_the_run_that_the_user_chose_says_that_steps_are_logged_again(tmp_path, mlflow_run, caplog):
    older = next(tmp_path.rglob("epoch_0_batch_2.ckpt"))
    with caplog.at_level(logging.INFO):
        chosen = fit(tmp_path, mlflow_logger(tmp_path, run_id=mlflow_run.run_id), ckpt_path=str(older))
    assert chosen.run_id == mlflow_run.run_id
    assert "MLFlowLogger keeps what came after it in the run that you chose: its steps are logged again" in caplog.text
    assert "gets a log of its own" not in caplog.text


def steps(logger):
    return [it.step for it in logger.experiment.get_metric_history(logger.run_id, "train_loss_step")]


def test_step_that_mlflow_has_is_not_logged_again(tmp_path, mlflow_run):
    mlflow_run.log_metrics({"train_loss_step": 0.5}, step=4)
    assert steps(fit(tmp_path, mlflow_logger(tmp_path), ckpt_path=latest(tmp_path), epochs=2)) == list(range(8))


def test_step_that_mlflow_has_would_be_there_twice_by_its_own_client(tmp_path, mlflow_run, monkeypatch):
    """The twin."""
    monkeypatch.delattr(mlflow_log._Continued, "log_batch")
    mlflow_run.log_metrics({"train_loss_step": 0.5}, step=4)
    resumed = fit(tmp_path, mlflow_logger(tmp_path), ckpt_path=latest(tmp_path), epochs=2)
    assert sorted(steps(resumed)) == [0, 1, 2, 3, 4, 4, 5, 6, 7]
