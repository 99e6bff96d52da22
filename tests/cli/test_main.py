"""What all commands share: exit codes, errors in one message, JSON, and lines that fit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from catalog.conftest import DAMAGE
from cli import made

from checkpointable import CheckpointFileError, Checkpoints, MonitorError, PolicyError, RemoteError, __version__
from checkpointable.cli import ls
from checkpointable.cli.answer import encoded
from checkpointable.cli.main import main
from checkpointable.cli.parser import tree

ON_A_RUN = {
    "show": [],
    "ls": [],
    "verify": [],
    "prune": [],
    "resume": ["--dry-run"],
    "watch": ["--once"],
    "export": ["-o", "out.pt"],
    "average": ["-o", "out.pt"],
}


@pytest.mark.parametrize("name", ON_A_RUN)
def test_command_on_an_empty_directory_says_so_and_is_1(name, command, tmp_path):
    (tmp_path / "empty").mkdir()
    done = command(name, "empty", *ON_A_RUN[name])
    assert done.code == 1
    assert re.search(r"no checkpoint|cannot average 0 checkpoints", done.out + done.err)
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize("name", ON_A_RUN)
def test_command_on_a_path_that_is_not_there_is_1(name, command):
    assert command(name, "nothing", *ON_A_RUN[name]).code == 1


@pytest.mark.parametrize("name", ON_A_RUN)
def test_command_on_a_file_that_is_no_checkpoint_is_one_message_and_1(name, command, tmp_path):
    (tmp_path / "notes.txt").write_text("these are no weights")
    done = command(name, "notes.txt", *ON_A_RUN[name])
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith(f"checkpointable {name}: notes.txt is not a checkpoint")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", ON_A_RUN)
def test_command_on_a_url_of_no_known_kind_is_one_message_and_2(name, command):
    done = command(name, "nothing://a/b", *ON_A_RUN[name])
    assert done.code == 2
    assert "Correct the path; allowed are directories and URLs" in done.err


@pytest.mark.parametrize("name", ON_A_RUN)
def test_command_on_a_run_is_0_and_fits_80_columns(name, command, tmp_path):
    made.killed_run(tmp_path / "a" / "a_directory_with_a_name_that_takes_more_than_half_of_a_line_of_80_columns")
    made.write(tmp_path / "a" / "1.ckpt", contents=made.WEIGHTS, score=1.0, at=made.at(1), **made.FIRST)
    done = command(name, "a", *ON_A_RUN[name])
    assert done.code == 0, done.err
    assert done.out
    too_wide = [line for line in done.out.splitlines() if len(line) > 80]
    assert too_wide == [] or too_wide[0].startswith(("next", "load"))


@pytest.mark.parametrize("name", ON_A_RUN)
def test_command_with_json_prints_one_object_with_its_exit_code(name, command, tmp_path):
    made.killed_run(tmp_path / "a")
    made.write(tmp_path / "a" / "other.ckpt", contents=made.WEIGHTS, score=1.0, at=made.at(1), **made.FIRST)
    done = command(name, "a", *ON_A_RUN[name], "--json")
    if name != "watch":  # it prints an object a line
        assert {**done.json, "format": 1, "command": name, "exit_code": 0} == done.json
    assert done.code == 0
    (tmp_path / "out.pt").unlink(missing_ok=True)
    again = command(name, "nothing", *ON_A_RUN[name], "--json")
    if name != "watch":
        assert again.json["exit_code"] == again.code == 1


def test_error_with_json_is_in_the_object_too(command, tmp_path):
    (tmp_path / "notes.txt").write_text("these are no weights")
    done = command("ls", "notes.txt", "--json")
    assert done.json["error"]["type"] == "CheckpointFileError"
    assert done.json["error"]["message"] in done.err
    assert done.json["exit_code"] == done.code == 1


def test_number_that_is_not_finite_is_a_string_in_json(command, tmp_path):
    made.write(tmp_path / "a.ckpt", metrics={"loss": float("nan"), "top": float("-inf")})
    assert command("ls", "a.ckpt", "--json").json["checkpoints"][0]["metrics"] == {"loss": "nan", "top": "-inf"}


def test_name_of_a_file_that_is_no_text_is_still_json():
    assert json.loads(encoded({"path": "a\udcff"})) == {"path": "a\\udcff"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frob"], "invalid choice: 'frob'"),
        ([], "the following arguments are required: COMMAND"),
        (["ls"], "the following arguments are required: RUN"),
        (["export", "a"], "the following arguments are required: -o"),
        (["average", "a", "-o", "b.pt", "-k", "0"], "0 is not at least 1"),
        (["watch", "a", "--interval", "0"], "0 is not between 0.01 and a day"),
        (["completion", "tcsh"], "invalid choice: 'tcsh'"),
    ],
)
def test_wrong_command_line_is_2_with_the_usage(arguments, message, command):
    done = command(*arguments)
    assert done.code == 2
    assert "usage: checkpointable" in done.err
    assert message in done.err


def test_version_and_help_are_0(command):
    assert command("--version").out == f"checkpointable {__version__}\n"
    done = command("--help")
    assert done.code == 0
    assert all(re.search(rf"^    {it.name}\s", done.out, re.MULTILINE) for it in tree()[1])
    assert "exit codes: 0 all is well" in done.out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckpointFileError("it is damaged"), 1),
        (MonitorError("no such score"), 1),
        (PolicyError("not like this"), 2),
        (RemoteError("no answer"), 2),
        (PermissionError("denied"), 2),
        (BrokenPipeError(), 141),
        (KeyboardInterrupt(), 130),
    ],
)
def test_error_of_a_command_gives_its_exit_code(error, code, command, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(ls, "run", fail)
    done = command("ls", "a")
    assert done.code == code
    assert done.err == ("" if code > 2 else f"checkpointable ls: {error}\n")


def test_error_that_is_a_mistake_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr(ls, "run", lambda *_: {}["gone"])
    with pytest.raises(KeyError):
        main(["ls", "a"])


def test_warning_of_the_library_is_one_line_without_a_place_in_the_source(command, tmp_path):
    made.write(tmp_path / "a" / "1.ckpt", at=made.at(1))
    DAMAGE["bit"][0](made.write(tmp_path / "a" / "2.ckpt", at=made.at(2)))
    done = command("resume", "--dry-run", "a")
    assert done.code == 0
    assert done.err.startswith("checkpointable: warning: skipped ")
    assert "checkpoints.py" not in done.err


def test_every_command_has_a_module_with_a_docstring_that_names_it():
    for it in tree()[1]:
        source = Path(ls.__file__).with_name(f"{it.name}.py").read_text(encoding="utf-8")
        assert source.startswith(f'"""``checkpointable {it.name}')


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("average a -k x -o m.pt", "invalid number value: 'x'"),
        ("watch a --interval x", "invalid number of seconds value"),
    ],
)
def test_value_that_is_no_number_is_named_in_plain_words(capsys, line, said):
    assert main(line.split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("asked", ["ls", "show", "verify", "prune", "resume"])
def test_empty_path_is_refused_as_a_variable_that_is_not_set_gives_it(asked, command):
    done = command(asked, "", *(["--dry-run"] if asked == "resume" else []))
    assert done.code == 2
    assert "cannot look at '': pass the path" in done.err


@pytest.mark.parametrize("path", [None, "", [], ["a", None], b"a", 3])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(PolicyError, match="pass the path or URL of a directory or a file, or several"):
        Checkpoints(path)
