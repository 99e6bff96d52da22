"""``write_report``: what its page holds, and what it never holds."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from catalog.conftest import Make, fill_with_text, flip_a_bit, metadata, truncate
from catalog.report.pages import Page, reaching_out, read
from catalog.report.stories import NOT_EXACT, Story, content_of, with_kills_and_branches

from checkpointable import CheckpointFileError, Checkpoints, PolicyError
from checkpointable.catalog.report import markup, write_report
from checkpointable.catalog.report.sparkline import sparkline
from checkpointable.policy.history import History, MeasuredValue, Point
from checkpointable.policy.position import Position

MOST_BYTES = 500_000
ODD = "<script>alert(1)</script>"


def report(paths: Any, target: Path, **options: Any) -> Page:
    write_report(paths, target, **options)
    page = read(target)
    assert page.problems == []
    return page


def lacking(page: Page, names: list[str]) -> list[str]:
    """The files that a page does not name in its table."""
    return [name for name in names if page.texts.count(name) != 1]


def test_report_of_100_files_with_history_names_each_and_stays_below_500_kilobytes(tmp_path: Path) -> None:
    story = with_kills_and_branches(tmp_path / "run", more=[f"metric_number_{number}" for number in range(20)])
    page = report(tmp_path / "run", tmp_path / "run.html")
    names = [file.path.name for file in story.files]
    assert (len(names), lacking(page, names)) == (100, [])
    assert (tmp_path / "run.html").stat().st_size < MOST_BYTES


def test_report_without_a_file_that_is_there_is_found(tmp_path: Path) -> None:
    """The twin: a file that came after the report is missing in it."""
    story = Story(tmp_path / "run")
    story.session(2)
    page = report(tmp_path / "run", tmp_path / "run.html")
    late = story.session(1, story.files[-1])
    assert lacking(page, [file.path.name for file in story.files]) == [late.path.name]


def test_report_loads_nothing_and_forbids_scripts(tmp_path: Path) -> None:
    with_kills_and_branches(tmp_path / "run")
    report(tmp_path / "run", tmp_path / "run.html")
    source = (tmp_path / "run.html").read_text()
    assert reaching_out(source) == []
    assert "default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;" in source


def test_report_of_local_files_imports_neither_torch_nor_lightning(tmp_path: Path) -> None:
    Story(tmp_path / "run").session(1)
    code = (
        "import sys; from checkpointable.catalog.report import write_report; write_report(*sys.argv[1:]);"
        "print(sorted({'torch', 'lightning', 'fsspec', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run"), str(tmp_path / "run.html")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
    assert (tmp_path / "run.html").exists()


def test_report_rings_the_best_file_and_marks_it_and_the_last_in_the_table(tmp_path: Path) -> None:
    story = Story(tmp_path / "run", value=lambda epoch: [3.0, 1.0, 2.0][epoch], drift=0.0)
    story.session(3)
    page = report(tmp_path / "run", tmp_path / "run.html")
    assert len(page.classed("ring")) == 3  # on the curve, in the lane of the files, in the legend
    assert "epoch_1_attempt1.ckpt best" in page.text
    assert "epoch_2_attempt1.ckpt last" in page.text


def test_report_counts_sessions_kills_and_resumes(tmp_path: Path) -> None:
    with_kills_and_branches(tmp_path / "run")
    page = report(tmp_path / "run", tmp_path / "run.html")
    assert "Sessions 5 3 kills 4 resumes, 1 confirmed, 1 differing" in page.text
    assert [f"Session {number}" for number in range(1, 6)] == [it.strip() for it in page.texts if "Session " in it]
    assert page.text.count("it was killed, or could not save") == 3
    assert "137 batches that were trained again gave the same, bit for bit" in page.text
    assert "Batch 5,042 of the run gave another result than before the kill; 41 batches before it" in page.text
    assert len(page.classed("resume", "confirmed")) == 2  # in the picture and in its legend
    assert len(page.classed("resume", "not-confirmed")) == 3


def test_report_says_what_changed_between_sessions(tmp_path: Path) -> None:
    with_kills_and_branches(tmp_path / "run")
    page = report(tmp_path / "run", tmp_path / "run.html")
    assert "command: train.py --lr 0.001 0.0003" in page.text
    assert (page.tags()["del"], page.tags()["ins"]) == (1, 1)
    assert "git commit: 0123456789 → fedcba9876 + uncommitted changes" in page.text
    assert "host: gpu-01 → gpu-02" in page.text
    assert "script: learning_rate: 0.001 in the file, 0.0003 in the script" in page.text


def test_report_shows_the_cost_of_saving(tmp_path: Path) -> None:
    Story(tmp_path / "run").session(7, keeps=lambda epoch: epoch == 6)
    page = report(tmp_path / "run", tmp_path / "run.html")
    assert "Training waited 49 ms in all for 7 saves, 0.0078 % of the time of all sessions" in page.text
    assert "They wrote 86.4 MB" in page.text
    assert len(page.classed("deleted")) == 6


def test_report_says_how_exactly_each_file_resumes_with_each_reason_once(tmp_path: Path) -> None:
    Story(tmp_path / "run").session(4)
    page = report(tmp_path / "run", tmp_path / "run.html")
    assert page.texts.count("not exact") == 2
    assert page.texts.count(NOT_EXACT) == 1


def test_report_escapes_names_of_runs_metrics_files_and_commands(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    Story(folder, run_id=ODD, monitor=ODD).session(2, command=(ODD,), host=ODD, changes=(ODD,), ended=ODD)
    (folder / f"{ODD.replace('/', '')}.ckpt").write_bytes(b"PK")
    page = report(tmp_path, tmp_path / "run.html")
    assert reaching_out(page.source) == []
    assert page.tags()["script"] == 0
    assert page.text.count(ODD) > 5


def test_report_without_escaping_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin."""
    monkeypatch.setattr(markup.html, "escape", lambda text: text)
    Story(tmp_path / "run", monitor=ODD).session(2)
    write_report(tmp_path / "run", tmp_path / "run.html")
    assert "<script" in reaching_out((tmp_path / "run.html").read_text())


def test_report_of_a_name_that_is_no_text_is_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\x01.ckpt")
    (tmp_path / name).write_bytes(content_of(metadata(), None))
    assert r"caf\udce9" in report(tmp_path, tmp_path / "run.html").text


def test_report_of_files_without_history_shows_their_metadata(tmp_path: Path) -> None:
    story = Story(tmp_path / "run", has_history=False, value=lambda epoch: 1 / (1 + epoch), drift=0.0)
    story.session(2, story.session(2))
    page = report(tmp_path / "run", tmp_path / "run.html")
    assert lacking(page, [file.path.name for file in story.files]) == []
    assert "Sessions 2 0 kills 1 resume, 0 confirmed" in page.text
    assert page.text.count("No history of it was saved.") == 2
    assert "4 figures as a table" in page.text
    assert "No file has a history that lists saves." in page.text


def test_report_draws_no_figure_that_was_not_measured_at_its_position(make: Make, tmp_path: Path) -> None:
    """An interval file carries the value of the validation before it."""
    make("run/a.ckpt", batch=10, kind="best", score=0.5)
    make("run/b.ckpt", batch=15, kind="interval", metrics={"val_loss": 0.5})
    page = report(tmp_path / "run", tmp_path / "run.html")
    assert "1 figure as a table" in page.text
    assert len(page.classed("file")) == 5  # two for the best, its legend, and one for the other, with its legend
    assert not any("b.ckpt" in text and "val_loss" in text for text in page.texts)


def test_report_draws_the_whole_curve_from_one_file(tmp_path: Path) -> None:
    """With ``save_top_k=1``: ten points and two marks."""
    story = Story(tmp_path / "run")
    first = story.session(4, keeps=lambda epoch: False)
    second = story.session(3, first, keeps=lambda epoch: False)
    story.session(3, second, keeps=lambda epoch: epoch == 9)
    page = report(tmp_path / "run", tmp_path / "run.html")
    assert len(story.files) == 1
    assert "10 figures as a table" in page.text
    assert len(page.classed("dot")) == 10
    assert len(page.classed("kill")) == 2 + 1 + 2  # in the picture, in its legend, in the list of sessions


def test_report_with_values_that_are_no_numbers_says_so_and_draws_the_others(tmp_path: Path) -> None:
    values = [3.0, math.nan, 2.0, math.inf, -math.inf, 1e308, 1.0]
    Story(tmp_path / "run", value=lambda epoch: values[epoch], drift=0.0).session(7)
    page = report(tmp_path / "run", tmp_path / "run.html")
    shapes = ("points", "cx", "cy", "x", "y", "x1", "y1", "x2", "y2", "width", "height")
    assert not any("nan" in value or "inf" in value for name in shapes for value in page.attributes(name))
    assert len(page.classed("odd")) == 4
    assert len(page.classed("dot")) == 3


def test_report_of_a_metric_that_is_never_a_number_has_no_curve(tmp_path: Path) -> None:
    Story(tmp_path / "run", value=lambda epoch: math.nan, more=()).session(3)
    page = report(tmp_path / "run", tmp_path / "run.html")
    assert "no intact file has a score of val_loss" in page.text
    assert len(page.classed("odd")) == 3


def test_report_names_damaged_files_and_why(tmp_path: Path) -> None:
    story = Story(tmp_path / "run")
    story.session(4)
    flip_a_bit(str(story.files[2].path))
    truncate(str(story.files[0].path))
    page = report(tmp_path / "run", tmp_path / "run.html")
    assert "Files 4" in page.text
    assert "2 damaged" in page.text
    assert "not an intact zip archive" in page.text
    assert "the checksum of its member" in page.text
    assert len(page.classed("check", "intact")) == 2
    assert "Checked: all bytes of every file were read" in page.text


def test_report_without_verifying_says_so_and_calls_no_file_intact(tmp_path: Path) -> None:
    story = Story(tmp_path / "run")
    story.session(2)
    file = story.files[0].path
    file.write_bytes(file.read_bytes().replace(b"****", b"*+**", 1))  # in what stands for a tensor
    page = report(tmp_path / "run", tmp_path / "run.html", verify=False)
    assert "Not checked: no byte of the tensors was read, as asked for." in page.text
    assert "no damage known" in page.text
    assert page.classed("check", "intact") == []


def test_report_with_a_damaged_best_file_rings_the_next_one(tmp_path: Path) -> None:
    story = Story(tmp_path / "run", value=lambda epoch: 3.0 - epoch, drift=0.0)
    story.session(3)
    flip_a_bit(str(story.files[2].path))
    assert "epoch_1_attempt1.ckpt best last" in report(tmp_path / "run", tmp_path / "run.html").text


def test_report_of_a_newest_file_with_a_damaged_history_uses_that_of_the_one_before(tmp_path: Path) -> None:
    story = Story(tmp_path / "run")
    story.session(3)
    newest = story.files[-1].path
    newest.write_bytes(newest.read_bytes().replace(b'"monitor": "val_loss", "mode"', b'"monitor": "val_l*ss", "mode"'))
    page = report(tmp_path / "run", tmp_path / "run.html", verify=False)
    assert "2 figures as a table" in page.text
    assert "1 damaged" in page.text


def test_report_of_a_history_that_another_program_has_filled_oddly_is_written(tmp_path: Path) -> None:
    story = Story(tmp_path / "run")
    last = story.session(2)
    record = replace(last.history.sessions[0], started=math.nan, last_seen=-math.inf, generation=-5, command=())
    points = (Point(position=Position(-1, -1, -1, -1), metrics={"": 1.0}, ended="?"),)
    saves = (replace(last.history.saves[0], blocked_seconds=-1.0, write_seconds=math.inf, size_bytes=-3, name=""),)
    history = History(monitor="", mode="?", points=points, saves=saves, sessions=(record, record))
    last.path.write_bytes(content_of(metadata(metrics={}), history))
    assert "Sessions" in report(tmp_path / "run", tmp_path / "run.html").text


def test_report_of_a_long_chain_of_resumes_is_written(tmp_path: Path) -> None:
    ancestors = [{"attempt": f"a{number}", "batches": number} for number in range(2000)]
    stated = {**metadata(batches=3000), "lineage": {"attempt": "z", "generation": 2000, "ancestors": ancestors}}
    (tmp_path / "a.ckpt").write_bytes(content_of(stated, None))
    page = report(tmp_path, tmp_path / "run.html")
    assert "Sessions 2,001" in page.text


def test_report_of_several_runs_compares_them_and_links_to_each(tmp_path: Path) -> None:
    for name, best in {"good": 0.1, "bad": 0.9}.items():
        Story(tmp_path / name / "checkpoints", run_id=name, value=lambda epoch, it=best: it + 1 / (1 + epoch)).session(
            3
        )
    Story(tmp_path / "other" / "checkpoints", run_id="other", monitor="f1", mode="max", more=()).session(2)
    page = report(tmp_path, tmp_path / "runs.html")
    links = [value.removeprefix("#") for value in page.attributes("href")]
    assert links == ["run-1", "run-2", "run-3"] == page.attributes("id")
    assert page.text.count("3 runs") == 2  # the title and the heading
    assert "good best" in page.text
    assert "bad best" not in page.text
    assert "other best" not in page.text
    assert len(page.classed("spark")) >= 3


def test_report_of_damaged_files_alone_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"PK")
    page = report(tmp_path, tmp_path / "run.html")
    assert "These files do not tell which run they belong to." in page.text
    assert "a.ckpt" in page.text


def test_report_counts_checkpoints_of_other_libraries(make: Make, tmp_path: Path) -> None:
    import torch

    make("a.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "plain.ckpt")
    assert "1 checkpoint of other libraries there: not shown." in report(tmp_path, tmp_path / "run.html").text


def test_report_of_copies_lists_each_file_once_with_its_other_place(tmp_path: Path) -> None:
    story = Story(tmp_path / "run")
    file = story.session(1).path
    (tmp_path / "fast").mkdir()
    (tmp_path / "fast" / file.name).write_bytes(file.read_bytes())
    page = report([tmp_path / "run", tmp_path / "fast"], tmp_path / "run.html")
    assert f"also at {tmp_path}/fast/{file.name}" in page.text
    assert "Files 1" in page.text


def test_report_replaces_a_page_and_leaves_nothing_else(tmp_path: Path) -> None:
    Story(tmp_path / "run").session(1)
    target = tmp_path / "new" / "pages" / "run.HTML"
    report(tmp_path / "run", target)
    first = target.stat().st_ino
    report(tmp_path / "run", target)
    assert target.stat().st_ino != first
    assert [it.name for it in target.parent.iterdir()] == ["run.HTML"]


def test_report_to_a_link_to_a_checkpoint_replaces_the_link_alone(tmp_path: Path) -> None:
    file = Story(tmp_path / "run").session(1).path
    before = file.read_bytes()
    (tmp_path / "run.html").symlink_to(file)
    report(tmp_path / "run", tmp_path / "run.html")
    assert file.read_bytes() == before


def test_report_that_cannot_be_written_leaves_the_old_page_and_no_temporary_file(tmp_path: Path) -> None:
    Story(tmp_path / "run").session(1)
    too_long = tmp_path / f"{'x' * 300}.html"
    with pytest.raises(OSError, match="File name too long"):
        write_report(tmp_path / "run", too_long)
    assert [it.name for it in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("run/a.ckpt", "pass a path that ends in .html, such as"),
        ("run", "pass a path that ends in .html"),
        ("taken.html", "it is a directory. Pass the path of a file in it"),
    ],
)
def test_report_to_what_is_no_page_is_refused_with_advice(tmp_path: Path, target: str, advice: str) -> None:
    Story(tmp_path / "run").session(1)
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(PolicyError, match=advice):
        write_report(tmp_path / "run", tmp_path / target)


def test_report_to_a_url_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="Write it to a local path, and upload it"):
        write_report(tmp_path, "s3://bucket/run.html")


def test_report_of_nothing_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(CheckpointFileError, match=r"no checkpoint in .*\. Pass a directory with checkpoints\."):
        write_report(tmp_path, tmp_path / "run.html")
    with pytest.raises(CheckpointFileError, match="does not exist"):
        write_report(tmp_path / "missing", tmp_path / "run.html")
    fill_with_text(str(tmp_path / "notes.txt"))
    with pytest.raises(CheckpointFileError, match="Pass the directory that the checkpoints are in"):
        write_report(tmp_path / "notes.txt", tmp_path / "run.html")
    assert not (tmp_path / "run.html").exists()


def test_sparkline_interrupts_its_line_where_there_is_no_number() -> None:
    values = [3.0, 2.0, math.nan, 1.0]
    line = [MeasuredValue(Position(0, batch, batch, batch), value) for batch, value in enumerate(values)]
    assert sparkline(line, "val_loss").count("<polyline") == 2
    assert "no values" in sparkline([], "val_loss")


def test_report_of_a_url_is_not_checked_unless_asked_for(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/report_of_a_url/a.ckpt", content_of(metadata(), None))
    try:
        write_report("memory://report_of_a_url", tmp_path / "a.html")
        write_report("memory://report_of_a_url", tmp_path / "b.html", verify=True)
    finally:
        files.rm("/report_of_a_url", recursive=True)
    assert "Not checked: the files are remote" in (tmp_path / "a.html").read_text()
    assert "Checked: all bytes of the file were read" in (tmp_path / "b.html").read_text()
    assert ">a.ckpt<" in (tmp_path / "a.html").read_text()


def test_report_of_listed_checkpoints_is_that_of_their_whole_path(tmp_path: Path) -> None:
    story = Story(tmp_path / "run")
    story.session(3)
    Checkpoints(tmp_path / "run")[:1].report(tmp_path / "run.html", verify=False)
    page = read(tmp_path / "run.html")
    assert lacking(page, [file.path.name for file in story.files]) == []
    assert len(story.files) > 1


def test_report_says_what_the_history_of_a_long_run_lacks(tmp_path: Path) -> None:
    story = Story(tmp_path / "run")
    last = story.session(2)
    thinned = replace(last.history, points_left_out=1234, metrics_left_out=1)
    stated = metadata(metrics={})
    last.path.write_bytes(content_of(stated, thinned))
    text = report(tmp_path / "run", tmp_path / "run.html").text
    assert "1,234 measurements of so long a run are thinned out." in text
    assert "1 metric had no room in the history. Your logger has all." in text
    last.path.write_bytes(content_of(stated, last.history))
    assert "no room" not in report(tmp_path / "run", tmp_path / "run.html").text
