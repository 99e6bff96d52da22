"""A run that is killed and resumed is one run in its logs: each step once, as if it had never stopped."""

from __future__ import annotations

import csv
import signal
import sqlite3
from pathlib import Path

import forked
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SCRIPT = Path(__file__).parent / "logged_run.py"
FILES = "CSVLogger,TensorBoardLogger"
KILLS = (7, 16)  # before these batches; with files after every fourth one, two and three are trained again


def train(where, loggers, *, dies_before=-1, door="module", twin=False):
    """One process; what it has said."""
    where.mkdir(exist_ok=True)
    process = forked.start(
        SCRIPT, where, loggers, dies_before, door, *["twin"] * twin, output=where / f"said_{dies_before}"
    )
    process.join()
    said = forked.errors_of(where / f"said_{dies_before}").read_text()
    assert process.exitcode == (0 if dies_before < 0 else -signal.SIGKILL), said[-5000:]
    return said


def killed(where, loggers, kills=KILLS, **how):
    """The processes of one run; what the last one has said."""
    for dies_before in kills:
        train(where, loggers, dies_before=dies_before, **how)
    return train(where, loggers, **how)


def csv_of(where, version=0) -> Path:
    return where / f"CSVLogger/lightning_logs/version_{version}/metrics.csv"


def rows_of(path, column="train_loss_step"):
    """The steps at which a value was logged."""
    with open(path, newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get(column)]


def points_of(where, tag, version=0):
    """What TensorBoard shows."""
    found = EventAccumulator(str(where / f"TensorBoardLogger/lightning_logs/version_{version}"))
    found.Reload()
    return [(point.step, point.value) for point in found.Scalars(tag)]


def versions(where, logger):
    return sorted(path.name for path in (where / logger / "lightning_logs").iterdir())


@pytest.fixture(scope="module", params=["module", "callback", "pl"])
def runs(request, tmp_path_factory):
    """A run without a stop, and the same killed and resumed; the name of its loss, and where it was killed."""
    root, door = tmp_path_factory.mktemp("logs"), request.param
    kills = KILLS if door == "module" else KILLS[1:]
    train(root / "straight", FILES, door=door)
    said = killed(root / "killed", FILES, kills, door=door)
    assert "checkpointable: logging goes on: CSVLogger in" in said
    return root / "straight", root / "killed", "train_loss" if door == "callback" else "train_loss_step", kills


def test_csv_of_a_run_that_was_killed_has_the_bytes_of_one_without_a_stop(runs):
    straight, resumed, loss, _ = runs
    assert versions(resumed, "CSVLogger") == ["version_0"]
    assert rows_of(csv_of(resumed), loss) == list(range(24))
    assert csv_of(resumed).read_bytes() == csv_of(straight).read_bytes()


def test_rows_that_are_cut_lie_beside_the_csv(runs):
    _, resumed, loss, kills = runs
    cut = sorted(csv_of(resumed).parent.glob("metrics.csv.cut-*"))
    assert [path.name for path in cut] == ["metrics.csv.cut-1", "metrics.csv.cut-2"][: len(kills)]
    assert [rows_of(path, loss) for path in cut] == [[4, 5], [12, 13, 14]][-len(kills) :]


def test_tensorboard_of_a_run_that_was_killed_shows_each_point_of_one_without_a_stop_once(runs):
    straight, resumed, loss, _ = runs
    assert versions(resumed, "TensorBoardLogger") == ["version_0"]
    assert [step for step, _ in points_of(resumed, loss)] == list(range(24))
    for tag in (loss, "val_loss", "lr-AdamW" if loss == "train_loss_step" else "lr-SGD"):
        assert points_of(resumed, tag) == points_of(straight, tag)


def test_logs_of_a_run_in_which_no_logger_goes_on_are_in_pieces(tmp_path):
    """The twin."""
    killed(tmp_path, FILES, KILLS[1:], twin=True)
    assert versions(tmp_path, "CSVLogger") == versions(tmp_path, "TensorBoardLogger") == ["version_0", "version_1"]
    assert rows_of(csv_of(tmp_path, 1)) == list(range(12, 24))


def test_logs_of_two_ranks_that_were_killed_have_each_step_once(tmp_path):
    for dies_before in (7, -1):
        how = (SCRIPT, tmp_path, FILES, dies_before, "module")
        ended, said = forked.run_ranks(*how, where=tmp_path)
        assert ended == [0 if dies_before < 0 else -signal.SIGKILL] * 2, said[-5000:]
    assert versions(tmp_path, "CSVLogger") == versions(tmp_path, "TensorBoardLogger") == ["version_0"]
    assert rows_of(csv_of(tmp_path)) == list(range(24))
    assert [step for step, _ in points_of(tmp_path, "train_loss_step")] == list(range(24))


def test_mlflow_run_that_was_killed_has_each_point_once_and_is_finished(tmp_path):
    train(tmp_path, "CSVLogger,MLFlowLogger", dies_before=7)
    assert _mlflow(tmp_path, "select step from metrics where key = 'train_loss_step'") == [(i,) for i in range(6)]
    train(tmp_path, "CSVLogger,MLFlowLogger")
    with open(csv_of(tmp_path), newline="") as file:
        rows = [(int(row["step"]), row) for row in csv.DictReader(file)]
    for key in ("train_loss_step", "train_loss_epoch", "val_loss", "lr-AdamW"):
        points = _mlflow(tmp_path, f"select step, value from metrics where key = '{key}' order by step")
        assert points == [(step, float(row[key])) for step, row in rows if row[key]]
    assert _mlflow(tmp_path, "select status from runs") == [("FINISHED",)]


def _mlflow(where, query):
    with sqlite3.connect(where / "mlflow.db") as database:
        return database.execute(query).fetchall()


def test_wandb_run_that_was_killed_keeps_its_id_and_gets_the_steps_from_the_resume_on(tmp_path):
    pytest.importorskip("wandb", reason="pip install wandb")
    train(tmp_path, "WandbLogger", dies_before=7)
    said = train(tmp_path, "WandbLogger")
    first, resumed = sorted((tmp_path / "wandb").glob("offline-run-*"))
    run_id = first.name.rpartition("-")[2]
    assert resumed.name.endswith(f"-{run_id}")
    assert f"logging goes on: WandbLogger in run {run_id} (W&B keeps what it was sent after that checkpoint)" in said
    assert _wandb_steps(resumed / f"run-{run_id}.wandb") == list(range(4, 24))


def _wandb_steps(path):
    """The steps of the loss in the file of an offline run, which is in the format of LevelDB's logs."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, record, steps = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # no header fits into the rest of the block
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record, at = record + content[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            items = {it.key or "/".join(it.nested_key): it.value_json for it in Record.FromString(record).history.item}
            steps += [int(items["trainer/global_step"])] if "train_loss_step" in items else []
            record = b""
    return steps
