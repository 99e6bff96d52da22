"""The command as a process: what it loads, its exit code, pipes, terminals, colour."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli import made

HEAVY = ("torch", "lightning", "lightning_utilities", "fsspec", "numpy", "rich", "tqdm")
LOADED = """
import sys
from checkpointable.cli.main import main
codes = [main(line.split()) for line in sys.argv[2:]]
print(codes, sorted(set(sys.argv[1].split()) & set(sys.modules)), file=sys.stderr)
"""
QUICK = ["show a", "ls a", "verify a", "prune a --yes", "doctor a", "watch a --once", "resume a --dry-run"]


def process(*line: str, cwd: Path, **given: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *line], cwd=cwd, **{"capture_output": True, "text": True, "timeout": 600, **given}
    )


@pytest.fixture
def folder(tmp_path):
    made.killed_run(tmp_path / "a")
    made.write(tmp_path / "a/epoch_1.ckpt", at=made.at(1), **made.FIRST)
    return tmp_path


def test_looking_at_local_files_loads_neither_torch_nor_lightning_nor_fsspec(folder):
    done = process("-c", LOADED, " ".join(HEAVY), *QUICK, cwd=folder)
    assert done.stderr == f"{[0] * len(QUICK)} []\n"
    assert not (folder / "a/epoch_1.ckpt").exists()


def test_look_at_what_is_loaded_finds_fsspec_once_a_url_is_given(folder):
    """The twin: the check above can fail."""
    assert process("-c", LOADED, " ".join(HEAVY), "ls file:a", "ls memory://a", cwd=folder).stderr.endswith(
        "[1, 1] ['fsspec']\n"
    )


def test_module_is_run_with_dash_m_and_ends_with_its_exit_code(folder):
    assert process("-m", "checkpointable", "verify", "a", cwd=folder).returncode == 0
    assert process("-m", "checkpointable", "verify", "b", cwd=folder).returncode == 1
    assert process("-m", "checkpointable", "verify", cwd=folder).returncode == 2


def test_pipe_that_is_closed_ends_it_without_a_word(folder):
    reader, writer = os.pipe()
    os.close(reader)
    done = process(
        "-m", "checkpointable", "ls", "a", cwd=folder, stdout=writer, stderr=subprocess.PIPE, capture_output=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_to_a_pipe_is_plain_text(folder):
    assert "\x1b" not in process("-m", "checkpointable", "show", "a", cwd=folder).stdout


def test_output_in_ascii_alone_raises_nothing(folder):
    (folder / "a/epoch_1.ckpt").rename(folder / "a/épöch_1.ckpt")
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for name in ("show", "ls"):
        done = process("-m", "checkpointable", name, "a", cwd=folder, env=ascii_only)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.isascii()
    assert "\\xe9p\\xf6ch_1.ckpt" in done.stdout


def on_a_terminal(folder: Path, **env: str) -> str:
    """What is written to a real terminal."""
    ours, theirs = os.openpty()
    given = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    terminal = {**given, "TERM": "xterm-256color", "COLUMNS": "80", "PYTHONPATH": os.pathsep.join(sys.path), **env}
    done = subprocess.Popen(
        [sys.executable, "-m", "checkpointable", "show", "a"], cwd=folder, stdout=theirs, stderr=theirs, env=terminal
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # Linux: the other side is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert done.wait() == 0
    return written.decode().replace("\r\n", "\n")


def test_terminal_gets_colour_where_rich_is_installed_unless_no_color_is_set(folder):
    pytest.importorskip("rich")
    coloured, plain = on_a_terminal(folder), on_a_terminal(folder, NO_COLOR="1")
    assert "\x1b[" in coloured
    assert "\x1b" not in plain
    assert "run run1: no end noted" in plain
    assert on_a_terminal(folder, TERM="dumb") == plain
    lines = plain.splitlines()
    assert max(map(len, lines)) <= 80


def test_terminal_without_rich_gets_plain_text(folder, tmp_path):
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/rich.py").write_text("raise ImportError('not installed')")
    plain = on_a_terminal(folder, PYTHONPATH=os.pathsep.join([str(tmp_path / "blocked"), *sys.path]))
    assert "\x1b" not in plain
    assert "run run1: no end noted" in plain


def test_file_that_another_process_writes_is_left_out_of_no_command(folder):
    """A temporary file of a save under way is no checkpoint."""
    (folder / "a/.checkpointable-0-aa.tmp").write_bytes((folder / "a/epoch_1.ckpt").read_bytes()[:1000])
    assert process("-m", "checkpointable", "verify", "a", cwd=folder).returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_output_that_cannot_be_written_is_one_message_and_exit_code_2(folder):
    with open("/dev/full", "w") as full:
        done = process(
            "-m", "checkpointable", "ls", "a", "--json", cwd=folder, capture_output=False, stdout=full,
            stderr=subprocess.PIPE,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("checkpointable: cannot write the output: ")
    assert "Traceback" not in done.stderr
