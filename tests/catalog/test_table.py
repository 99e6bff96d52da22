"""The table of checkpoints, as text and as HTML: what it marks, how it fits, what it folds."""

from __future__ import annotations

import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from catalog.conftest import Make, fill_with_text, flip_a_bit

from checkpointable import Checkpoints
from checkpointable.catalog import table

LONG = "version_0/checkpoints/" + "a_long_name_" * 8 + "epoch_{}.ckpt"


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def hundred(make: Make, tmp_path: Path) -> Checkpoints:
    """A hundred files, the best of which is the fortieth."""
    for epoch in range(100):
        make(f"{epoch:03}.ckpt", epoch=epoch, batches=epoch, score=abs(epoch - 40.0), kind="best")
    return Checkpoints(tmp_path)


def marks(found: Checkpoints) -> dict[str, str]:
    """The mark of each row that has one, by the name of its file."""
    header, *lines = [line for line in repr(found).splitlines() if line.endswith((".ckpt", "name"))]
    start = header.index("kind")
    return {line.split()[-1]: line[:start].strip() for line in lines if line[:start].strip()}


def test_repr_is_a_table_with_a_line_for_each(make: Make, tmp_path: Path) -> None:
    make("runs/a.ckpt", epoch=1, batch=20, step=120, score=0.25, kind="best")
    make("runs/b.ckpt", epoch=1, batch=30, step=130, weights_only=True)
    header, first, second = repr(Checkpoints(tmp_path)).splitlines()
    assert header.split() == ["kind", "epoch", "batch", "step", "val_loss", "size", "created", "name"]
    assert first.split()[:7] == ["best,", "last", "best", "1", "20", "120", "0.25"]
    assert first.endswith(" runs/a.ckpt")
    assert second.lstrip().startswith("interval, weights only ")
    assert header.index("batch") + len("batch") == first.index("20") + len("20")


def test_repr_of_scores_by_several_monitors_names_each(make: Make, tmp_path: Path) -> None:
    make("a.ckpt", batch=1, score=0.25)
    make("b.ckpt", batch=2, score=0.75, monitor="acc", mode="max")
    header, first, second = repr(Checkpoints(tmp_path)).splitlines()
    assert "score" in header
    assert ("val_loss=0.25" in first, "acc=0.75" in second) == (True, True)


def test_repr_of_one_file_shows_its_name(make: Make) -> None:
    assert repr(Checkpoints(make("runs/a.ckpt"))).endswith("  a.ckpt")


def test_repr_of_a_score_that_is_nan_says_nan(make: Make, tmp_path: Path) -> None:
    make("a.ckpt", score=math.nan)
    assert " nan " in repr(Checkpoints(tmp_path))


def test_repr_of_a_name_with_control_characters_shows_none(make: Make, tmp_path: Path) -> None:
    make("a\x1b[2J\n.ckpt", score=0.5, monitor="loss\x07")
    lines = repr(Checkpoints(tmp_path)).splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_table_marks_the_best_and_the_last_and_those_found_damaged(make: Make, tmp_path: Path) -> None:
    for batch, score in enumerate([0.3, 0.1, 0.2]):
        make(f"{batch}.ckpt", batch=batch, score=score, kind="best")
    make("3.ckpt", batch=3)
    make("4.ckpt", batch=4, weights_only=True)
    found = Checkpoints(tmp_path)
    assert marks(found) == {"1.ckpt": "best", "3.ckpt": "last"}
    for name in ("1.ckpt", "3.ckpt"):
        flip_a_bit(str(tmp_path / name))
    assert marks(found) == {"1.ckpt": "best", "3.ckpt": "last"}, "no file is read to be shown"
    found.verify()
    assert marks(found) == {"1.ckpt": "damaged", "2.ckpt": "best, last", "3.ckpt": "damaged"}
    assert marks(found[:2]) == {"0.ckpt": "best, last", "1.ckpt": "damaged"}
    assert marks(found[1::-1]) == {"0.ckpt": "best, last", "1.ckpt": "damaged"}
    (tmp_path / "1.ckpt").unlink()
    make("1.ckpt", batch=1, score=0.1)
    found.verify()
    assert marks(found)["1.ckpt"] == "best"


def test_table_lists_files_that_cannot_be_read_as_damaged_at_its_end(make: Make, tmp_path: Path) -> None:
    for number in range(7):
        fill_with_text(make(f"lost{number}.ckpt"))
    make("z.ckpt")
    lines = repr(Checkpoints(tmp_path)).splitlines()
    assert lines[1].endswith("z.ckpt")
    assert [line.split() for line in lines[2:7]] == [["damaged", f"lost{number}.ckpt"] for number in range(5)]
    assert lines[7] == "not readable: 7; verify() says which and why"


@pytest.mark.parametrize("width", [60, 80, 100, 120, 260])
def test_table_is_not_wider_than_the_terminal(make: Make, tmp_path: Path, monkeypatch, width: int) -> None:
    for epoch in range(3):
        held = {"weights_only": True, "frozen_checksum": "x", "weights": "averaged"} if epoch == 1 else {}
        make(LONG.format(epoch), epoch=10 * epoch, batch=12345, step=1234567, score=epoch / 7, kind="best", **held)
    monkeypatch.setenv("COLUMNS", str(width))
    shown = repr(Checkpoints(tmp_path))
    assert max(map(len, shown.splitlines())) <= width
    for epoch in range(3):
        assert f"_{epoch}.ckpt" in shown, "the end of a name, where names differ"
    assert (LONG.format(2) in shown) == (width == 260)


def test_table_that_is_not_cut_is_wider(make: Make, tmp_path: Path, monkeypatch) -> None:
    """The twin."""
    make(LONG.format(0))
    monkeypatch.setattr(table, "cut", lambda text, width: text)
    assert max(map(len, repr(Checkpoints(tmp_path)).splitlines())) > 120


def test_table_of_a_narrow_terminal_keeps_what_says_most(make: Make, tmp_path: Path, monkeypatch) -> None:
    make(LONG.format(0), epoch=3, batch=20, score=0.5)
    monkeypatch.setenv("COLUMNS", "80")
    assert repr(Checkpoints(tmp_path)).split()[:3] == ["kind", "epoch", "batch"]
    assert "created" not in repr(Checkpoints(tmp_path))


@pytest.mark.parametrize(("text", "width", "expected"), [("abc", 3, "abc"), ("abcdefghijkl", 9, "ab...ijkl")])
def test_cut_leaves_the_start_and_more_of_the_end(text: str, width: int, expected: str) -> None:
    assert table.cut(text, width) == expected


def test_table_of_a_hundred_folds_and_shows_the_best(hundred) -> None:
    lines = repr(hundred).splitlines()
    assert lines[1].split()[-1] == "000.ckpt"
    assert [line for line in lines if line.startswith("...")] == ["... 32 more", "... 48 more"]
    assert lines[10].split()[:2] == ["best", "best"]
    assert lines[10].endswith("040.ckpt")
    assert lines[-1].startswith("last ")
    assert len(lines) == 1 + 8 + 1 + 1 + 1 + 11


def test_table_of_twenty_is_not_folded(hundred) -> None:
    assert "more" not in repr(hundred[:20])
    assert "... 2 more" in repr(hundred[30:51])
    assert "more" not in repr(hundred[32:53]), "the best is one of two, so that a line would stand for one row"


def test_html_is_a_table_with_escaped_text(make: Make, tmp_path: Path) -> None:
    make("<b>.ckpt", score=0.5, monitor="a<b")
    shown = Checkpoints(tmp_path)._repr_html_()
    assert ">&lt;b&gt;.ckpt</td>" in shown
    assert ">a&lt;b</th>" in shown
    assert shown.count("<tr>") == 2
    assert "<b>best, last</b>" in shown


def test_html_of_a_hundred_can_be_unfolded(hundred) -> None:
    shown = hundred._repr_html_()
    folded, _, unfolded = shown.partition("<details><summary>all 100</summary>")
    assert (folded.count("<tr>"), unfolded.count("<tr>")) == (1 + 8 + 1 + 1 + 1 + 11, 1 + 100)
    assert ">... 32 more</td>" in folded
    assert "<details>" not in hundred[:20]._repr_html_()


def test_html_is_well_formed_and_names_no_colour(hundred, make: Make, tmp_path: Path) -> None:
    flip_a_bit(os.path.join(tmp_path, "050.ckpt"))
    hundred.verify()
    shown = hundred._repr_html_()
    opened: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Parser().feed(shown)
    assert opened == []
    assert not re.search(r"color|background|#[0-9a-f]{3}|rgb", shown)
