"""The plot of runs: what is drawn, and what is not, as it was not measured there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import matplotlib
import pytest
from catalog.conftest import Make
from catalog.with_history import at, history, write
from matplotlib import colors, pyplot

from checkpointable import CheckpointableWarning, CheckpointFileError, Checkpoints, MonitorError
from checkpointable.catalog.history import read_history
from checkpointable.policy.history import Point

matplotlib.use("Agg")
VALUES = [1.0, 0.8, 0.7, 0.65, 0.5, 0.52, 0.4, 0.45, 0.43, 0.42]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


@pytest.fixture
def run(tmp_path: Path) -> Checkpoints:
    """What ten epochs, two kills and ``save_top_k=1`` leave: the best file, and the newest one inside an epoch."""
    score = {"monitor": "val_loss", "mode": "min", "value": 0.4}
    given = {"kind": "best", "score": score, "epoch": 6, "batches": 70, "metrics": {"val_loss": 0.4}}
    write(tmp_path / "best.ckpt", history(VALUES[:7], (25, 47)), **given)
    write(tmp_path / "newest.ckpt", history(VALUES, (25, 47)), epoch=9, batch=5, batches=105)
    return Checkpoints(tmp_path)


def drawn(axes: object, gid: str) -> list[list[float]]:
    """The points of all marks of a kind."""
    return [point for line in axes.lines if line.get_gid() == gid for point in line.get_xydata().tolist()]


def lines(axes: object) -> list[list[list[float]]]:
    return [line.get_xydata().tolist() for line in axes.lines if line.get_gid() is None]


def test_plot_shows_the_whole_run_by_its_newest_file(run) -> None:
    axes = run.plot()
    assert lines(axes) == [[[10 * (epoch + 1), value] for epoch, value in enumerate(VALUES)]]
    assert sorted({x for x, _ in drawn(axes, "resume")}) == [25, 47]
    assert len([line for line in axes.lines if line.get_gid() == "resume"]) == 2
    assert [text.get_text() for text in axes.texts] == ["killed, resumed"] * 2
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("batches", "val_loss")


def test_plot_without_the_history_shows_what_the_files_tell_alone(run, monkeypatch) -> None:
    """The twin."""
    monkeypatch.setattr("checkpointable.catalog.history.read_history", lambda path: None)
    assert lines(run.plot()) == [[[70, 0.4]]]


def test_plot_marks_each_file_and_rings_the_best(run) -> None:
    axes = run.plot()
    assert drawn(axes, "kept") == [[70, 0.4]]
    assert drawn(axes, "best") == [[70, 0.4]]
    assert [x for x, _ in drawn(axes, "kept elsewhere")] == [105]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "file", "file, not measured there", "best file",
    ]  # fmt: skip


def test_plot_shows_no_value_that_a_file_has_not_measured(make: Make, tmp_path: Path) -> None:
    make("best.ckpt", batch=10, score=0.5, kind="best")
    make("later.ckpt", batch=17)
    axes = Checkpoints(tmp_path).plot()
    assert lines(axes) == [[[10, 0.5]]]
    assert [x for x, _ in drawn(axes, "kept elsewhere")] == [17]


def test_plot_of_a_url_shows_the_whole_run(run, tmp_path) -> None:
    for name in ("best.ckpt", "newest.ckpt"):
        fsspec.filesystem("memory").pipe_file(f"/plotted/{name}", (tmp_path / name).read_bytes())
    assert len(lines(Checkpoints("memory://plotted").plot())[0]) == 10


def test_plot_of_some_shows_what_their_newest_file_tells(run) -> None:
    assert len(lines(run.where(kind="best").plot())[0]) == 7


def test_plot_says_what_ended_each_session(tmp_path: Path) -> None:
    told = history(VALUES, (25, 47))
    ended = [*told.sessions]
    object.__setattr__(ended[0], "ended", "SIGTERM")
    write(tmp_path / "a.ckpt", told, batches=100)
    assert [text.get_text() for text in Checkpoints(tmp_path).plot().texts] == ["SIGTERM, resumed", "killed, resumed"]


def test_plot_of_many_resumes_marks_them_without_words(tmp_path: Path) -> None:
    write(tmp_path / "a.ckpt", history(VALUES, tuple(range(5, 95, 10))), batches=100)
    axes = Checkpoints(tmp_path).plot()
    assert (len({x for x, _ in drawn(axes, "resume")}), len(axes.texts)) == (9, 0)
    assert "resumed" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_plot_of_a_newest_file_that_is_gone_reads_an_older_one(run, tmp_path) -> None:
    os.remove(tmp_path / "newest.ckpt")
    assert len(lines(run.plot())[0]) == 7


def test_plot_passes_over_a_damaged_history_with_a_warning_at_the_callers_line(run, tmp_path) -> None:
    write(tmp_path / "newest.ckpt", {"monitor": "val_loss"}, epoch=9, batch=5, batches=105)
    with pytest.warns(
        CheckpointableWarning, match=r"passed over .*newest\.ckpt.*mode is missing.*An older file"
    ) as caught:
        assert len(lines(run.plot())[0]) == 7
    assert caught[0].filename == __file__


def test_history_that_is_not_one_raises_and_says_what_is_wrong(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ckpt", {"monitor": 3, "mode": "min"})
    with pytest.raises(CheckpointFileError, match=r"a\.ckpt has a history that cannot be read: monitor is 3"):
        read_history(path)


def test_plot_shows_each_run_in_a_colour_of_its_own(make: Make, tmp_path: Path) -> None:
    make("a1.ckpt", run_id="a", created=1.0, batch=10, score=0.5)
    make("a2.ckpt", run_id="a", created=2.0, batch=20, score=0.0)
    make("a3.ckpt", run_id="a", created=3.0, batch=30)
    make("b1.ckpt", run_id="b", created=4.0, batch=10, metrics={"val_loss": 0.75})
    axes = Checkpoints(tmp_path).plot()
    assert lines(axes) == [[[10, 0.5], [20, 0.0]], [[10, 0.75]]]
    assert drawn(axes, "best") == [[20, 0.0]]
    named = [line for line in axes.lines if line.get_label() in ("a", "b")]
    assert [line.get_label() for line in named] == ["a", "b"]
    assert named[0].get_color() != named[1].get_color()
    assert [text.get_text() for text in axes.get_legend().get_texts()][:3] == ["a", "b", "file"]


def test_plot_of_a_named_metric_shows_it_without_a_best(tmp_path: Path) -> None:
    told = history([0.5], points=(Point(position=at(10), metrics={"val_loss": 0.5, "accuracy": 0.25}, ended="epoch"),))
    write(tmp_path / "a.ckpt", told, batches=10, score={"monitor": "val_loss", "mode": "min", "value": 0.5})
    axes = Checkpoints(tmp_path).plot("accuracy")
    assert lines(axes) == [[[10, 0.25]]]
    assert drawn(axes, "best") == []


@pytest.mark.parametrize("style", ["default", "dark_background", "grayscale"])
def test_plot_has_the_colours_of_the_style_and_none_is_lost_on_its_ground(run, style: str) -> None:
    with pyplot.style.context(style):
        axes = run.plot()
        ground = colors.to_rgb(axes.get_facecolor())
        used = [colors.to_rgb(line.get_color()) for line in axes.lines if line.get_gid() != "best"]
        used += [colors.to_rgb(line.get_markeredgecolor()) for line in axes.lines if line.get_gid() == "best"]
        used += [colors.to_rgb(text.get_color()) for text in (*axes.texts, *axes.get_legend().get_texts())]
        for color in used:
            assert max(abs(a - b) for a, b in zip(color, ground, strict=True)) > 0.2
        ring = next(line for line in axes.lines if line.get_gid() == "best")
        assert ring.get_markeredgecolor() == pyplot.rcParams["text.color"]


def test_plot_of_an_unknown_metric_raises_and_names_those_that_exist(make: Make, tmp_path: Path) -> None:
    make("a.ckpt", metrics={"val_loss": 0.5, "accuracy": 0.25})
    write(tmp_path / "b.ckpt", history([0.5], monitor=None), run_id="b")
    with pytest.raises(MonitorError, match=r"has 'f1'\. Choose one of 'accuracy', 'val_loss'\."):
        Checkpoints(tmp_path).plot("f1")
    with pytest.raises(MonitorError, match=r"has a score\. Choose one of 'accuracy', 'val_loss'\."):
        Checkpoints(tmp_path).plot()


def test_plot_without_any_metric_raises_and_says_to_log_one(tmp_path: Path) -> None:
    with pytest.raises(MonitorError, match=r"Log one with self\.log first"):
        Checkpoints(tmp_path).plot()


def test_plot_without_matplotlib_raises_and_says_what_to_install(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("a.ckpt", score=0.5)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "checkpointable\[plot\]"'):
        Checkpoints(tmp_path).plot()
