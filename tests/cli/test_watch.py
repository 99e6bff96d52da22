"""``watch``: a line for each save."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading

import pytest
from catalog.conftest import DAMAGE
from cli import made

from checkpointable.cli import watch


def test_once_prints_what_is_there_and_ends(command, tmp_path):
    made.killed_run(tmp_path / "a")
    done = command("watch", "a", "--once")
    assert done.code == 0
    lines = done.out.splitlines()
    assert ["epoch 5, batch 0 " in lines[0], "epoch 6, batch 0 " in lines[1]] == [True, True]
    assert "val_loss=0.9" in lines[0]
    records = [json.loads(line) for line in command("watch", "a", "--once", "--json").out.splitlines()]
    assert [(it["format"], it["command"], it["epoch"]) for it in records] == [(1, "watch", 5), (1, "watch", 6)]


def test_damaged_file_is_told_once(command, tmp_path, monkeypatch):
    DAMAGE["truncated"][0](made.write(tmp_path / "a" / "1.ckpt"))
    looks = iter([None, None])

    def until_two_looks(_):
        if next(looks, "end") == "end":
            raise KeyboardInterrupt

    monkeypatch.setattr(watch, "sleep", until_two_looks)
    done = command("watch", "a")
    assert done.code == 0
    assert [line.split()[:2] for line in done.out.splitlines()] == [["damaged", "1.ckpt:"]]
    assert "waiting for the first save in a (Ctrl-C ends)" in done.err


@pytest.mark.parametrize(("place", "seconds"), [("a", 1.0), ("memory://watched/a", 10.0)])
def test_pause_between_looks_is_longer_at_a_url_and_can_be_set(place, seconds, command, tmp_path, monkeypatch):
    paused = []

    def pause(length):
        paused.append(length)
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "sleep", pause)
    assert command("watch", place).code == 0
    assert command("watch", place, "--interval", "0.5").code == 0
    assert paused == [seconds, 0.5]


def _hear_ctrl_c() -> None:
    """A shell lets what it starts in the background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_each_save_is_a_line_at_once_until_ctrl_c(tmp_path):
    folder = tmp_path / "a"
    made.write(folder / "1.ckpt", at=made.at(1))
    line = [sys.executable, "-m", "checkpointable", "watch", str(folder), "--interval", "0.05"]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_ctrl_c
    ) as process:
        stuck = threading.Timer(600, process.kill)
        stuck.start()
        for epoch in (1, 2, 3):
            if epoch > 1:
                made.write(tmp_path / "aside.tmp", at=made.at(epoch))
                (tmp_path / "aside.tmp").rename(folder / f"{epoch}.ckpt")
            assert f" epoch {epoch}, batch 0 " in process.stdout.readline()
        (folder / "1.ckpt").unlink()  # as a run does with its old ones
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        stuck.cancel()
    assert (process.returncode, out, err) == (0, "", "")
