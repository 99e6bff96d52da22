"""What ``verify`` returns, how it reads, and when it shows a progress bar."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from catalog.conftest import Make, fill_with_text, flip_a_bit

from checkpointable import Checkpoints
from checkpointable.catalog import verification


class Kernel:
    """As that of a notebook is called."""


Kernel.__name__ = "ZMQInteractiveShell"


def test_verification_is_a_mapping_that_counts_and_names_the_damaged(make: Make, tmp_path: Path) -> None:
    paths = [make(f"{number}<b>.ckpt", batch=number) for number in range(3)]
    flip_a_bit(paths[1])
    fill_with_text(make("c.ckpt"))
    found = Checkpoints(tmp_path).verify()
    assert (found[paths[0]], len(found), list(found.damaged)) == (None, 4, [paths[1], str(tmp_path / "c.ckpt")])
    head, second, last = repr(found).splitlines()
    assert head == "2 intact, 2 damaged:"
    assert second.startswith(f"  {paths[1]}: the checksum of its member")
    assert last.startswith(f"  {tmp_path}/c.ckpt: not an intact zip archive")
    assert "1&lt;b&gt;.ckpt</td><td>the checksum" in found._repr_html_()


def test_verification_without_a_damaged_file_says_how_many_are_intact(make: Make, tmp_path: Path) -> None:
    assert repr(Checkpoints(tmp_path).verify()) == "no checkpoints"
    make("a.ckpt")
    assert repr(Checkpoints(tmp_path).verify()) == "1 intact"
    assert Checkpoints(tmp_path).verify()._repr_html_() == "<p>1 intact</p>"


@pytest.mark.parametrize("watched_by", ["a terminal", "a notebook"])
def test_verify_of_much_shows_a_bar_where_it_is_watched(
    make: Make, tmp_path: Path, monkeypatch, capsys, watched_by
) -> None:
    if watched_by == "a terminal":
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    else:
        shell = type(sys)("IPython")
        shell.get_ipython = Kernel  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", shell)
    make("a.ckpt")
    Checkpoints(tmp_path).verify()
    assert capsys.readouterr().err == "", "under 1 GB"
    monkeypatch.setattr(verification, "_SHOWS_PROGRESS_BYTES", 1000)
    Checkpoints(tmp_path).verify()
    shown = capsys.readouterr().err
    assert "verifying" in shown
    assert f"{(tmp_path / 'a.ckpt').stat().st_size / 1000:.2f}k" in shown


def test_verify_of_much_shows_nothing_where_nobody_watches(make: Make, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(verification, "_SHOWS_PROGRESS_BYTES", 0)
    make("a.ckpt")
    Checkpoints(tmp_path).verify()
    assert capsys.readouterr().err == ""
