"""The constructor's arguments and their limits."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from pathlib import Path

import pytest

from checkpointable._errors import PolicyError
from checkpointable.policy.options import Options

NOT_WHOLE = [1.0, 2.5, "3", True, False, math.nan, [1], timedelta(1)]
NOT_A_FLAG = [None, 0, 1, "True", 1.0, []]

BAD = {
    "save_interval": (
        [0, -1, *NOT_WHOLE],
        "must be a whole number of batches, at least 1, or 'auto', or None for never",
    ),
    "every_n_train_steps": ([-1, *NOT_WHOLE], "must be a whole number of at least 1; 0 or None for never"),
    "keep_every_n_epochs": ([-1, *NOT_WHOLE], "must be a whole number of at least 1; 0 or None for never"),
    "every_n_epochs": ([-1, *NOT_WHOLE], "must be a whole number of at least 1; 0 or None for never"),
    "train_time_interval": (
        [timedelta(seconds=-1), 60, 1.5, "60", True],
        "must be a datetime.timedelta that is not negative, or None for never",
    ),
    "save_on_exception": (NOT_A_FLAG, "must be True or False"),
    "save_last": (NOT_A_FLAG, "must be True or False"),
    "monitor": (["", "  ", 3, True, ["val_loss"]], "must be the name of a logged quantity, or None to judge nothing"),
    "mode": (["", "MIN", "minimum", "auto", None, 1, True, ["min"]], "must be 'min' or 'max'"),
    "min_delta": (
        [-0.1, -1, math.nan, math.inf, -math.inf, "0.1", None, True, [0.1]],
        "must be a number that is not negative",
    ),
    "save_top_k": ([-2, None, *NOT_WHOLE], "must be a whole number of -1 or more: 0 keeps none, -1 keeps all"),
    "save_last_k": ([-2, None, *NOT_WHOLE], "must be a whole number of -1 or more: 0 keeps none, -1 keeps all"),
    "save_on_train_epoch_end": (
        [0, 1, "True", 1.0, []],
        "must be True (end of the training epoch), False (after validation) or None (wherever it is logged)",
    ),
    "overhead_budget": (
        [0, 0.0, 1, 1.0, -0.1, math.nan, math.inf, "0.01", None, True, []],
        "must be a share of the training time, above 0 and below 1",
    ),
    "async_save": (NOT_A_FLAG, "must be True or False"),
    "save_trainable_only": (["yes", None, 1], "must be True or False"),
    "save_weights_only": (["last", None, 1], "must be True or False, or 'best' for the best checkpoints alone"),
    "fast_dirpath": (
        [0, "", b"x", True, "s3://bucket/run"],
        "must be a local directory, or None to save in dirpath at once",
    ),
    "upload_interval": (
        [0, 60.0, timedelta(0), timedelta(-1)],
        "must be a datetime.timedelta above 0, or None to copy the next checkpoint as soon as the one before is there",
    ),
    "dirpath": (
        ["", 3, True, b"runs", ["runs"]],
        "must be a directory or a URL, or None for 'checkpoints' under the trainer's log directory",
    ),
    "filename": (
        [None, "", 3, "{epoch", "{}"],
        "allowed: a name with fields like {epoch}, {batch:05d}, {val_loss:.3f}, without '.ckpt'",
    ),
    "best_filename": (
        [None, "", 3, "{epoch", "{}"],
        "allowed: a name with fields like {epoch}, {batch:05d}, {val_loss:.3f}, without '.ckpt'",
    ),
    "auto_insert_metric_name": (NOT_A_FLAG, "must be True or False"),
    "resume": (
        ["always", True, "", 1],
        "must be 'auto' (resume if there is a checkpoint), 'must' (never start anew), or None (as ckpt_path says)",
    ),
    "strict_resume": (NOT_A_FLAG, "must be True or False"),
    "log_save_cost": (NOT_A_FLAG, "must be True or False"),
    "from_script": (
        ["lr", ["data", "weights"], 3, None, True, b"data", [1]],
        "must be one of 'learning_rate', 'lr_schedulers', 'optimizers', 'data', 'randomness', 'callbacks', or a list of"
        " them; () for none",
    ),
    "save_timeout": ([0, -1, math.nan, math.inf, "30", True, None], "must be a number of seconds above 0"),
    "deadline_seconds": (
        [0, -1, math.nan, math.inf, "30", True, timedelta(seconds=30)],
        "must be a number of seconds above 0, or None if the process may live as long as a save takes",
    ),
    "patience": (
        [0, -1, *NOT_WHOLE],
        "must be a whole number of validations, at least 1, or None for no early stopping",
    ),
}

GOOD = {
    "save_interval": [None, "auto", 1, 100, 10**9],
    "every_n_train_steps": [None, 0, 1, 1000],
    "every_n_epochs": [None, 0, 1, 10],
    "keep_every_n_epochs": [None, 0, 1, 10],
    "train_time_interval": [None, timedelta(seconds=1), timedelta(days=3)],
    "overhead_budget": [0.01, 0.5, 1e-6],
    "save_on_exception": [True, False],
    "save_last": [True, False],
    "monitor": [None, "val_loss", "val/acc", "train_loss_step"],
    "mode": ["min", "max"],
    "min_delta": [0, 0.0, 1, 1e-4],
    "save_top_k": [-1, 0, 1, 5],
    "save_last_k": [-1, 0, 1, 5],
    "save_on_train_epoch_end": [None, True, False],
    "save_weights_only": [True, False, "best"],
    "save_trainable_only": [True, False],
    "dirpath": [None, "runs/a", "/data/runs", "~/runs", "../runs", Path("runs"), "s3://bucket/run", "memory://x"],
    "filename": ["{epoch}", "x", "sub/{step:06d}_{val/loss:.3f}"],
    "best_filename": ["{monitor}_{val_loss:.3f}", "the_best_one"],
    "auto_insert_metric_name": [False],
    "async_save": [True, False],
    "fast_dirpath": [None],  # the others need a dirpath
    "upload_interval": [None],
    "resume": [None],  # the others need a dirpath
    "strict_resume": [True, False],
    "log_save_cost": [True, False],
    "from_script": [(), "data", ["data"], ("data", "data", "optimizers"), {"callbacks"}],
    "save_timeout": [120, 0.5],
    "deadline_seconds": [None, 30, 0.5],
    "patience": [None, 1, 20],
}


def cases(table):
    return [
        pytest.param(argument, value, id=f"{argument}={value!r}")
        for argument, values in table.items()
        for value in (values[0] if isinstance(values, tuple) else values)
    ]


@pytest.mark.parametrize(("argument", "value"), cases(BAD))
def test_argument_with_a_bad_value_is_refused_naming_it_and_what_is_allowed(argument, value):
    with pytest.raises(PolicyError) as caught:
        Options(**{argument: value})
    lines = str(caught.value).splitlines()
    assert lines[0] == "these arguments cannot be used:"
    assert len(lines) == 2
    assert lines[1].startswith(f"  {argument}={value!r}: ")
    assert lines[1].endswith(BAD[argument][1])


@pytest.mark.parametrize(("argument", "value"), cases(GOOD))
def test_argument_with_a_good_value_is_accepted_as_it_is(argument, value):
    assert getattr(Options(**{argument: value}), argument) is value


def test_every_argument_has_bad_and_good_values_here():
    arguments = set(Options.__dataclass_fields__)
    assert set(BAD) == arguments
    assert set(GOOD) == arguments


@pytest.mark.parametrize("filename", ["last", "best", "../x", "/x", "~/x", "{epoch:zz}", "{epoch!r}"])
@pytest.mark.parametrize("argument", ["filename", "best_filename"])
def test_file_name_that_cannot_be_used_is_refused_in_the_constructor(argument, filename):
    with pytest.raises(PolicyError, match=re.escape(f"  {argument}={filename!r}: ")):
        Options(**{argument: filename})


def test_names_inserted_into_the_default_template_are_refused_with_a_template_that_fits():
    with pytest.raises(PolicyError, match=r'auto_insert_metric_name=True: .* pass filename="\{epoch\}-\{batch\}"'):
        Options(auto_insert_metric_name=True)
    assert Options(auto_insert_metric_name=True, filename="{epoch}-{batch}").auto_insert_metric_name


def test_several_bad_values_are_reported_in_one_error():
    bad = {argument: values[0][0] for argument, values in BAD.items()}
    with pytest.raises(PolicyError) as caught:
        Options(**bad)
    lines = str(caught.value).splitlines()[1:]
    assert sorted(line.strip().split("=")[0] for line in lines) == sorted(bad)
    assert all(any(line.endswith(allowed) for _, allowed in BAD.values()) for line in lines)


def test_good_values_beside_a_bad_one_are_not_reported():
    with pytest.raises(PolicyError) as caught:
        Options(save_interval=5, save_top_k=-3, mode="max")
    assert "save_top_k=-3" in str(caught.value)
    assert "save_interval" not in str(caught.value)
    assert "mode" not in str(caught.value)


@pytest.mark.parametrize("resume", ["auto", "must"])
def test_resume_without_a_directory_is_refused_saying_what_it_needs(resume):
    with pytest.raises(PolicyError, match=rf"resume='{resume}': needs a dirpath to look in"):
        Options(resume=resume)
    assert Options(resume=resume, dirpath="here").resume == resume


@pytest.mark.parametrize("none", [{"monitor": None}, {"save_top_k": 0}])
def test_best_files_with_weights_only_are_refused_where_none_is_best(none):
    with pytest.raises(PolicyError, match=r"save_weights_only='best': no checkpoint is best, as monitor is None or"):
        Options(save_weights_only="best", **none)


def test_patience_without_a_monitor_is_refused_saying_what_it_needs():
    with pytest.raises(PolicyError, match=r"patience=3: needs a monitor to watch, and monitor is None"):
        Options(patience=3, monitor=None)
    assert Options(patience=3).patience == 3


@pytest.mark.parametrize(
    ("arguments", "keeps_best"),
    [({}, True), ({"save_top_k": -1}, True), ({"save_top_k": 0}, False), ({"monitor": None}, False)],
)
def test_options_keep_the_best_only_with_a_monitor_and_a_place_to_keep(arguments, keeps_best):
    assert Options(**arguments).keeps_best is keeps_best


def test_options_by_position_are_refused():
    with pytest.raises(TypeError):
        Options(100)  # type: ignore[misc]


def test_error_is_a_value_error():
    with pytest.raises(ValueError, match="save_interval=0"):
        Options(save_interval=0)
