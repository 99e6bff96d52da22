"""Lines that fit, in any script, and numbers as people read them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess

import pytest
from cli import made

from checkpointable.cli import curve, words
from checkpointable.cli.one_run import FINISHED, KILLED, Session
from checkpointable.cli.parser import tree
from checkpointable.cli.screen import Screen
from checkpointable.policy.history import MeasuredValue


@pytest.mark.parametrize(
    ("text", "width", "middle", "shown"),
    [
        ("short", 10, False, "short"),
        ("a long text", 8, False, "a long …"),
        ("a_long_name.ckpt", 11, True, "a_lon….ckpt"),
        ("日本語のファイル", 9, False, "日本語の…"),
        ("日本語のファイル", 9, True, "日本…イル"),
        ("abc", 1, False, "…"),
        ("abc", 0, False, ""),
    ],
)
def test_text_is_cut_to_the_columns_that_it_takes(text, width, middle, shown):
    assert words.cut(text, width, "…", middle=middle) == shown
    assert words.cells(shown) <= max(width, 0)


def test_no_line_is_wider_than_the_screen_whatever_is_in_it():
    stream = io.StringIO()
    screen = Screen(stream=stream, width=40)
    screen.line("x" * 30, ("y" * 30, "bold"))
    screen.text("word " * 30, indent="  ")
    screen.text("w" * 100)
    screen.table([["a" * 30, "b" * 30, "c\nd"], ["1", "日本語" * 20, "2"]], right=(0,), shrink=1)
    lines = stream.getvalue().splitlines()
    assert max(map(words.cells, lines)) == 40
    assert len(lines) == 1 + 5 + 3 + 2  # a line break in a name breaks no line


def test_column_to_spare_is_left_out_where_a_name_would_be_cut():
    rows = [["kind", "a column that is to spare" * 2, "a_name_of_some_length.ckpt"]]
    for width, has_it in ((120, True), (60, False)):
        stream = io.StringIO()
        Screen(stream=stream, width=width).table(rows, spare=(1,))
        assert ("to spare" in stream.getvalue()) is has_it
        assert "a_name_of_some_length.ckpt" in stream.getvalue()


def test_line_to_be_typed_is_never_cut():
    stream = io.StringIO()
    Screen(stream=stream, width=40).line("x" * 100, whole=True)
    assert stream.getvalue() == "x" * 100 + "\n"


def measured(*values: float) -> list[MeasuredValue]:
    return [MeasuredValue(made.at(epoch), value) for epoch, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ((1.0, 2.0, 3.0), "  ▁▁▅▅██"),
        ((2.0, 2.0), "  ▁▁▁▁▁▁"),
        ((1.0, 10.0, 100.0), "  ▁▁▅▅██"),  # on a log scale
        ((-1.0, 9.0, 99.0), "  ▁▁▁▁██"),
        ((1.0, float("nan"), 3.0), "  ▁▁??██"),
        ((float("inf"),), "  ??????"),
        ((), "        "),
    ],
)
def test_sparkline_draws_each_value_from_where_it_was_measured(values, line):
    is_log = curve.wants_log_scale(measured(*values), "min")
    assert curve.sparkline(measured(*values), 4 * made.BATCHES, 8, is_log=is_log, is_unicode=True) == line


def test_sparkline_of_many_values_has_the_width_and_ends_with_the_last():
    drawn = curve.sparkline(measured(*map(float, range(1000))), 1000 * made.BATCHES, 20, is_log=False, is_unicode=True)
    assert len(drawn) == 20
    assert (drawn[1], drawn[-1]) == ("▁", "█")


def test_scale_is_linear_where_high_values_are_wished_or_some_are_not_above_0():
    assert curve.wants_log_scale(measured(1.0, 10.0), "min")
    assert not curve.wants_log_scale(measured(1.0, 10.0), "max")
    assert not curve.wants_log_scale(measured(1.0, 3.0), "min")
    assert not curve.wants_log_scale(measured(0.0, 10.0), "min")
    assert not curve.wants_log_scale(measured(float("nan")), "min")


def test_timeline_numbers_sessions_and_marks_how_they_ended():
    def lasting(number: int, begins: int, ends: int, ended: str) -> Session:
        reach = {"begins": made.at(begins), "ends": made.at(ends)}
        return Session(number=number, started=0, last_seen=0, ended=ended, **reach)

    sessions = [lasting(1, 0, 5, KILLED), lasting(2, 4, 10, FINISHED)]
    assert curve.timeline(sessions, 10 * made.BATCHES, 20, is_unicode=True) == "1───────2──────────┤"
    assert curve.timeline(sessions[:1], 5 * made.BATCHES, 10, is_unicode=False) == "1--------x"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_every_command_and_option(shell, command):
    script = command("completion", shell).out
    for it in tree()[1]:
        assert it.name in script
        for action in it.actions:
            for option in action.option_strings:
                name = option.lstrip("-")
                assert f"-l {name}" in script or f"-s {name}" in script or option in script
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, timeout=600)
        assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["checkpointable", "sh"], ["show"]),
        (["checkpointable", "prune", "a", "--keep"], ["--keep-last", "--keep-best"]),
        (["checkpointable", "completion", "z"], ["zsh"]),
        (["checkpointable", "show", "some"], ["some_directory"]),
    ],
)
def test_bash_completes_commands_options_and_paths(typed, completed, command, tmp_path):
    (tmp_path / "some_directory").mkdir()
    script = command("completion", "bash").out
    words_typed = " ".join(typed)
    asked = (
        f"{script}\nCOMP_WORDS=({words_typed}); COMP_CWORD={len(typed) - 1}; _checkpointable; echo ${{COMPREPLY[@]}}"
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert (done.stdout.split(), done.stderr) == (completed, "")
    assert os.path.isdir(tmp_path / "some_directory")
