"""What loggers upload: files that are durable, the best one and the last one; and what is not saved among them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from nets import Net, Scripted, loader, trainer

from checkpointable import latest
from checkpointable.saving import directory
from checkpointable.storage.format import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*loader strategy is deprecated")  # MLflow, on this SQLAlchemy


def mlflow_logger(root):
    return MLFlowLogger(
        tracking_uri=f"sqlite:///{root}/mlflow.db", artifact_location=f"{root}/artifacts", log_model="all"
    )


class Watching(MLFlowLogger):
    """Verifies each file at the moment at which it is uploaded."""

    def __init__(self, **options):
        super().__init__(**options)
        self.uploaded = []

    def after_save_checkpoint(self, checkpoint_callback):
        for path in {checkpoint_callback.best_model_path, checkpoint_callback.last_model_path} - {""}:
            assert checkpoint.problem(path) is None
            self.uploaded.append(Path(path).name)
        super().after_save_checkpoint(checkpoint_callback)


@pytest.mark.parametrize("log_model", [True, "all"])
def test_best_and_last_are_uploaded_to_mlflow_when_they_are_durable(tmp_path, log_model):
    options = {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "artifact_location": f"{tmp_path}/artifacts"}
    logger = Watching(**options, log_model=log_model)
    net = Scripted([2.0, 1.0, 3.0], dirpath=tmp_path / "files")
    trainer(tmp_path, logger=logger, max_epochs=3).fit(net, loader(2), loader(1))
    best, last = Path(net.best_model_path), Path(net.last_model_path)
    assert best.name in logger.uploaded
    assert last.name in logger.uploaded
    assert best != last
    for path in (best, last):
        (copy,) = (tmp_path / "artifacts").rglob(path.name)
        assert copy.read_bytes() == path.read_bytes()


@pytest.fixture
def artifact(tmp_path):
    """The last checkpoint of a run, where only MLflow has it."""
    first = trainer(tmp_path, logger=mlflow_logger(tmp_path), max_epochs=1)
    first.fit(Net(dirpath=tmp_path / "files", every_n_epochs=1), loader(2))
    shutil.rmtree(tmp_path / "files")
    return latest(tmp_path / "artifacts")


def test_run_that_is_resumed_from_an_artifact_saves_elsewhere_and_leaves_the_artifact(tmp_path, artifact):
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts").rglob("*")}
    resumed = trainer(tmp_path, logger=CSVLogger(tmp_path), max_epochs=3)
    resumed.fit(Net(every_n_epochs=1), loader(2), ckpt_path=artifact)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts").rglob("*")} == before
    saved = tmp_path / "lightning_logs/version_0/checkpoints"
    assert Path(resumed.checkpoint_callback.last_model_path).parent == saved


def test_run_would_save_among_the_artifacts_where_they_are_not_known(tmp_path, artifact, monkeypatch):
    """The twin."""
    monkeypatch.setattr(directory, "_is_artifact", lambda path: False)
    resumed = trainer(tmp_path, logger=CSVLogger(tmp_path), max_epochs=3)
    resumed.fit(Net(every_n_epochs=1), loader(2), ckpt_path=artifact)
    assert "artifacts" in Path(resumed.checkpoint_callback.last_model_path).parts
