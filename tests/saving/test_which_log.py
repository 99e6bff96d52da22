"""In which log a fit goes on: that of the newest checkpoint's run; not that of a branch, or of the user's choice."""

from __future__ import annotations

import csv
import logging
import shutil
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from nets import Net, loader, trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from checkpointable import CheckpointableWarning, latest
from checkpointable.catalog.info import metadata_of
from checkpointable.lightning_internals import csv_log
from checkpointable.saving import foreseen
from checkpointable.storage import commit


def fit(root, logger=None, ckpt_path=None, epochs=1, **options):
    """A fit of four batches an epoch, each logged; its trainer."""
    made = trainer(root, logger=CSVLogger(root) if logger is None else logger, max_epochs=epochs, log_every_n_steps=1)
    net = Net(**{"every_n_epochs": 1, "save_last_k": -1, "save_interval": 2, **options})
    made.fit(net, loader(4), ckpt_path=ckpt_path)
    return made


def directory(root, version=0, name="lightning_logs") -> Path:
    return root / name / f"version_{version}"


def steps(path, column="train_loss_step"):
    with open(path, newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row[column]]


def lines(caplog):
    said = ("checkpointable: logging goes on", "gets a log of its own")
    return [record.message for record in caplog.records if any(text in record.message for text in said)]


def test_csv_goes_on_where_the_newest_checkpoint_is_resumed(tmp_path, caplog):
    fit(tmp_path)
    with caplog.at_level(logging.INFO):
        resumed = fit(tmp_path, ckpt_path=latest(tmp_path), epochs=2)
    assert steps(directory(tmp_path) / "metrics.csv") == list(range(8))
    assert [it.name for it in directory(tmp_path).parent.iterdir()] == ["version_0"]
    assert resumed.log_dir == str(directory(tmp_path))
    assert lines(caplog) == [f"checkpointable: logging goes on: CSVLogger in {directory(tmp_path)}."]


def test_branch_from_an_older_checkpoint_gets_a_log_of_its_own_and_the_other_is_unchanged(tmp_path, caplog):
    fit(tmp_path, epochs=2)
    before = (directory(tmp_path) / "metrics.csv").read_bytes()
    older = directory(tmp_path) / "checkpoints/epoch_0_batch_2.ckpt"
    with caplog.at_level(logging.INFO):
        branch = fit(tmp_path, ckpt_path=str(older), epochs=1)
    assert (directory(tmp_path) / "metrics.csv").read_bytes() == before
    assert steps(directory(tmp_path, 1) / "metrics.csv") == [2, 3]
    assert Path(branch.checkpoint_callback.last_model_path).parent == older.parent, "files stay where the run saves"
    (said,) = lines(caplog)
    assert f"{older} is not the newest checkpoint of its run, so this branch gets a log of its own: CSVLogger" in said
    fit(tmp_path, ckpt_path=latest(tmp_path), epochs=2)
    assert steps(directory(tmp_path, 1) / "metrics.csv") == list(range(2, 8)), "the branch is the newest now"


def test_branch_would_cut_the_log_where_every_checkpoint_counts_as_the_newest(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr(foreseen, "is_newest", lambda file, options: True)
    fit(tmp_path, epochs=2)
    fit(tmp_path, ckpt_path=str(directory(tmp_path) / "checkpoints/epoch_0_batch_2.ckpt"), epochs=1)
    assert steps(directory(tmp_path) / "metrics.csv") == list(range(4))


def test_version_that_the_user_chooses_wins(tmp_path):
    fit(tmp_path)
    before = (directory(tmp_path) / "metrics.csv").read_bytes()
    fit(tmp_path, CSVLogger(tmp_path, version="mine"), ckpt_path=latest(tmp_path), epochs=2)
    assert (directory(tmp_path) / "metrics.csv").read_bytes() == before
    assert steps(tmp_path / "lightning_logs/mine/metrics.csv") == list(range(4, 8))


def test_older_checkpoint_in_the_version_that_the_user_chooses_cuts_the_log_and_keeps_what_is_cut(tmp_path):
    fit(tmp_path, CSVLogger(tmp_path, version=0), epochs=2)
    older = directory(tmp_path) / "checkpoints/epoch_0_batch_2.ckpt"
    fit(tmp_path, CSVLogger(tmp_path, version=0), ckpt_path=str(older), epochs=1)
    assert steps(directory(tmp_path) / "metrics.csv") == list(range(4))
    assert steps(directory(tmp_path) / "metrics.csv.cut-1") == list(range(2, 8))


def test_version_that_is_the_number_of_the_slurm_job_is_not_taken_for_the_users(tmp_path, monkeypatch):
    """Lightning gives it to the logger that it makes by itself. A job that is submitted again has another one."""
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    fit(tmp_path, CSVLogger(tmp_path, version=41))
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    fit(tmp_path, CSVLogger(tmp_path, version=42), ckpt_path=latest(tmp_path), epochs=2)
    assert steps(directory(tmp_path, 41) / "metrics.csv") == list(range(8))


def test_log_in_another_directory_is_not_touched(tmp_path):
    fit(tmp_path / "a")
    fit(tmp_path / "b")
    before = (directory(tmp_path / "b") / "metrics.csv").read_bytes()
    fit(tmp_path / "b", ckpt_path=latest(tmp_path / "a"), epochs=2)
    assert (directory(tmp_path / "b") / "metrics.csv").read_bytes() == before
    assert steps(directory(tmp_path / "b", 1) / "metrics.csv") == list(range(4, 8))


def test_run_that_was_moved_with_its_log_goes_on_in_it(tmp_path):
    fit(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    fit(tmp_path / "b", ckpt_path=latest(tmp_path / "b"), epochs=2)
    assert steps(directory(tmp_path / "b") / "metrics.csv") == list(range(8))


def test_several_loggers_of_one_class_each_go_on_in_their_own_log(tmp_path):
    def loggers():
        return [CSVLogger(tmp_path, name="one"), CSVLogger(tmp_path, name="two"), TensorBoardLogger(tmp_path, "three")]

    fit(tmp_path, loggers())
    fit(tmp_path, loggers(), ckpt_path=latest(tmp_path), epochs=2)
    for name in ("one", "two"):
        assert steps(directory(tmp_path, name=name) / "metrics.csv") == list(range(8))
    assert [it.name for it in (tmp_path / "three").iterdir()] == ["version_0"]


def test_resume_auto_goes_on_in_the_log(tmp_path):
    for epochs in (1, 2):
        options = {"dirpath": tmp_path / f"files{epochs}"}  # this process looks into each directory once
        shutil.copytree(tmp_path / "files1", options["dirpath"]) if epochs == 2 else None
        fit(tmp_path, epochs=epochs, resume="auto", **options)
    assert steps(directory(tmp_path) / "metrics.csv") == list(range(8))


def test_log_is_cut_to_the_checkpoint_that_is_resumed_where_the_given_one_is_damaged(tmp_path):
    fit(tmp_path, [CSVLogger(tmp_path), TensorBoardLogger(tmp_path, "tensorboard")])
    newest = latest(tmp_path)
    content = bytearray(Path(newest).read_bytes())
    content[200] ^= 1
    Path(newest).write_bytes(content)
    with pytest.warns(CheckpointableWarning, match="Resuming from .*epoch_0_batch_2.ckpt"):
        fit(tmp_path, [CSVLogger(tmp_path), TensorBoardLogger(tmp_path, "tensorboard")], ckpt_path=newest, epochs=2)
    assert steps(directory(tmp_path) / "metrics.csv") == list(range(8))
    assert steps(directory(tmp_path) / "metrics.csv.cut-1") == [2, 3]
    shown = EventAccumulator(str(directory(tmp_path, name="tensorboard")))
    shown.Reload()
    assert [point.step for point in shown.Scalars("train_loss_step")] == list(range(8))


def test_log_goes_on_where_the_newest_checkpoint_is_damaged_and_the_one_before_is_given(tmp_path):
    fit(tmp_path)
    newest = latest(tmp_path)
    content = bytearray(Path(newest).read_bytes())
    content[200] ^= 1
    Path(newest).write_bytes(content)
    with pytest.warns(CheckpointableWarning, match="skipped"):
        given = latest(tmp_path)
    fit(tmp_path, ckpt_path=given, epochs=2)
    assert steps(directory(tmp_path) / "metrics.csv") == list(range(8))


class FailsFirst(Net):
    def training_step(self, batch, batch_idx):
        raise RuntimeError("no memory")

    def on_train_start(self):
        self.logger.log_metrics({"started": 1.0}, step=4)
        self.logger.save()


def test_fit_that_fails_before_a_batch_is_trained_cuts_nothing(tmp_path):
    first = fit(tmp_path)
    first.logger.log_metrics({"train_loss_step": 0.5}, step=77)
    first.logger.save()
    made = trainer(tmp_path, logger=CSVLogger(tmp_path), max_epochs=2)
    with pytest.raises(RuntimeError, match="no memory"):
        made.fit(FailsFirst(), loader(4), ckpt_path=latest(tmp_path))
    assert steps(directory(tmp_path) / "metrics.csv") == [0, 1, 2, 3, 77]
    assert steps(directory(tmp_path) / "metrics.csv", "started") == [4]
    fit(tmp_path, ckpt_path=latest(tmp_path), epochs=2)
    assert steps(directory(tmp_path) / "metrics.csv") == list(range(8))
    assert steps(directory(tmp_path) / "metrics.csv.cut-1") == [77]


def test_run_that_has_nothing_left_to_train_leaves_its_log_as_it_is(tmp_path):
    fit(tmp_path)
    before = (directory(tmp_path) / "metrics.csv").read_bytes()
    fit(tmp_path, ckpt_path=latest(tmp_path))
    assert (directory(tmp_path) / "metrics.csv").read_bytes() == before
    assert not list(directory(tmp_path).glob("*.cut-*"))


def test_second_fit_of_a_trainer_from_a_checkpoint_cuts_the_open_log(tmp_path):
    made = fit(tmp_path)
    made.logger.log_metrics({"train_loss_step": 0.5}, step=77)
    made.fit_loop.max_epochs = 2
    made.fit(made.lightning_module, loader(4), ckpt_path=made.checkpoint_callback.last_model_path)
    assert steps(directory(tmp_path) / "metrics.csv") == list(range(8))


def test_resume_without_a_logger_and_with_one_of_another_class_says_nothing(tmp_path, caplog):
    class Custom(DummyLogger):
        experiment = None

    with caplog.at_level(logging.INFO):
        fit(tmp_path, Custom())
        fit(tmp_path, Custom(), ckpt_path=latest(tmp_path), epochs=2)
        fit(tmp_path, False, ckpt_path=latest(tmp_path), epochs=3)
    assert lines(caplog) == []
    assert metadata_of(latest(tmp_path)).loggers == ()


def test_logger_that_opens_its_log_in_a_way_of_its_own_is_left_as_it_is(tmp_path):
    class Custom(CSVLogger):
        @property
        def experiment(self):
            return super().experiment

    fit(tmp_path, Custom(tmp_path))
    fit(tmp_path, Custom(tmp_path), ckpt_path=latest(tmp_path), epochs=2)
    assert [directory(tmp_path, version).is_dir() for version in (0, 1)] == [True, True]


def test_users_own_options_of_tensorboard_stay(tmp_path):
    def logger(**options):
        return TensorBoardLogger(tmp_path, flush_secs=7, filename_suffix=".mine", **options)

    fit(tmp_path, logger())
    resumed = fit(tmp_path, logger(purge_step=2), ckpt_path=latest(tmp_path), epochs=2)
    assert resumed.logger._kwargs == {"flush_secs": 7, "filename_suffix": ".mine", "purge_step": 2}
    assert all(path.name.endswith(".mine") for path in directory(tmp_path).glob("events*"))
    shown = EventAccumulator(str(directory(tmp_path)))
    shown.Reload()
    assert [point.step for point in shown.Scalars("train_loss_step")] == [0, 1, 4, 5, 6, 7], "from step 2, as they say"


def test_log_is_not_cut_where_another_run_is_resumed_than_was_foreseen(tmp_path, monkeypatch):
    fit(tmp_path)
    fit(tmp_path / "other", dirpath=tmp_path / "files")
    wrong = directory(tmp_path) / "checkpoints/epoch_0_batch_2.ckpt"
    monkeypatch.setattr(foreseen, "find", lambda *_: foreseen.Foreseen(str(wrong), metadata_of(wrong)))
    monkeypatch.setattr(foreseen, "is_newest", lambda *_: True)
    fit(tmp_path, ckpt_path=latest(tmp_path / "files"), epochs=2)
    assert steps(directory(tmp_path) / "metrics.csv") == [0, 1, 2, 3, 4, 5, 6, 7]
    assert not list(directory(tmp_path).glob("*.cut-*"))


@pytest.mark.parametrize("name", ["gone.ckpt", "notes.txt", "."])
def test_path_that_is_no_checkpoint_gives_the_error_that_it_gives_without_a_logger(tmp_path, name):
    (tmp_path / "notes.txt").write_text("no checkpoint")
    errors = []
    for logger in (False, CSVLogger(tmp_path)):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            fit(tmp_path, logger, ckpt_path=str(tmp_path / name))
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]


def test_rows_that_are_logged_where_nothing_is_left_to_train_are_written(tmp_path):
    class Ends(Net):
        def on_fit_end(self):
            self.logger.log_metrics({"ended": 1.0}, step=4)

    fit(tmp_path)
    made = trainer(tmp_path, logger=CSVLogger(tmp_path), max_epochs=1)
    made.fit(Ends(), loader(4), ckpt_path=latest(tmp_path))
    assert steps(directory(tmp_path) / "metrics.csv") == [0, 1, 2, 3]
    assert steps(directory(tmp_path) / "metrics.csv", "ended") == [4]


def test_log_is_whole_where_the_process_ends_between_keeping_what_is_cut_and_cutting(tmp_path, monkeypatch):
    first = fit(tmp_path)
    first.logger.log_metrics({"train_loss_step": 0.5}, step=77)
    first.logger.save()
    before = (directory(tmp_path) / "metrics.csv").read_bytes()

    def dies(path, *args, **options):
        if path.name == "metrics.csv":
            raise KeyboardInterrupt
        return commit.commit(path, *args, **options)

    monkeypatch.setattr(csv_log, "commit", dies)
    with pytest.raises(SystemExit):
        fit(tmp_path, ckpt_path=latest(tmp_path), epochs=2)
    monkeypatch.undo()
    assert (directory(tmp_path) / "metrics.csv").read_bytes().startswith(before)
    fit(tmp_path, ckpt_path=latest(tmp_path), epochs=2)
    assert steps(directory(tmp_path) / "metrics.csv") == list(range(8))
    assert all(77 in steps(path) for path in directory(tmp_path).glob("metrics.csv.cut-*"))


class Counting(Net):
    """Logs by a count of its own, which goes twice as fast as Lightning's."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.logger.experiment.add_scalar("own", 1.0, 2 * (self.trainer.fit_loop.total_batch_idx + 1))


def test_points_that_user_code_has_logged_by_a_larger_count_stay_where_a_run_resumes(tmp_path):
    def points(net, ckpt_path=None, epochs=1):
        made = trainer(tmp_path, logger=TensorBoardLogger(tmp_path), max_epochs=epochs, log_every_n_steps=1)
        made.fit(net, loader(6), ckpt_path=ckpt_path)
        shown = EventAccumulator(str(directory(tmp_path)))
        shown.Reload()
        return [point.step for point in shown.Scalars("own")]

    assert points(Counting(save_interval=2)) == [2, 4, 6, 8, 10, 12]
    assert points(Counting(save_interval=2), latest(tmp_path), epochs=2) == list(range(2, 26, 2))
