"""What a report tells of a run: its attempts as a tree, its curves, its damaged files, what was checked and changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from catalog.conftest import Make
from catalog.report.stories import Story, with_kills_and_branches

from checkpointable import Checkpoints
from checkpointable.catalog.report.attempts import Attempt, attempts_of
from checkpointable.catalog.report.changes import changes_between
from checkpointable.catalog.report.checks import Checks, check
from checkpointable.catalog.report.curve import curve_of, metric_names
from checkpointable.catalog.report.run import Run, runs_of
from checkpointable.catalog.scan import scan


def runs_at(path: Path) -> list[Run]:
    return runs_of(scan(path), Checks())[0]


def tree(path: Path) -> list[Attempt]:
    return attempts_of(runs_at(path)[0])


def test_attempts_are_in_the_order_of_the_tree_with_the_line_to_the_newest_file_last(tmp_path: Path) -> None:
    with_kills_and_branches(tmp_path)
    found = tree(tmp_path)
    assert [(it.number, it.depth, it.is_on_the_line) for it in found] == [
        (1, 0, True),
        (2, 0, True),
        (3, 1, False),
        (4, 0, True),
        (5, 0, True),
    ]
    assert [(it.begins, it.left_at, it.ends) for it in found] == [
        (0, 2000, 2500),
        (2000, 4000, 5000),
        (5000, None, 6200),
        (4000, 5400, 5400),
        (5400, None, 7300),
    ]
    assert [it.fate for it in found] == ["killed", "killed", "killed", "stopped", "finished"]
    assert [it.resume for it in found] == [None, "confirmed", "differs", "not confirmed", "not confirmed"]


def test_attempts_of_files_without_history_come_from_their_lineages(tmp_path: Path) -> None:
    with_kills_and_branches(tmp_path, has_history=False)
    found = tree(tmp_path)
    assert [(it.number, it.depth) for it in found] == [(1, 0), (2, 0), (3, 1), (4, 0), (5, 0)]
    assert [(it.begins, it.left_at) for it in found] == [
        (0, 2000),
        (2000, 4000),
        (5000, None),
        (4000, 5400),
        (5400, None),
    ]
    assert {it.fate for it in found} == {"unknown"}


def test_attempts_whose_files_are_all_deleted_come_from_the_history_of_a_later_one(tmp_path: Path) -> None:
    story = Story(tmp_path)
    first = story.session(3, keeps=lambda epoch: False)
    second = story.session(3, first, keeps=lambda epoch: False)
    story.session(1, second)
    assert [(it.number, it.begins, it.ends, it.fate) for it in tree(tmp_path)] == [
        (1, 0, 300, "killed"),
        (2, 300, 600, "killed"),
        (3, 600, 700, "open"),
    ]


def test_further_fit_in_the_same_process_is_a_session_of_its_own_that_resumed_nothing(tmp_path: Path) -> None:
    story = Story(tmp_path)
    first = story.session(2, ended="finished")
    further = story.session(3, first, is_further=True)
    story.session(1, further, confirmed_batches=7)
    found = tree(tmp_path)
    assert [(it.begins, it.left_at, it.ends) for it in found] == [(0, 200, 200), (200, 500, 500), (500, None, 600)]
    assert [(it.fate, it.resume) for it in found] == [("finished", None), ("killed", None), ("open", "confirmed")]
    assert [len(it.infos) for it in found] == [2, 3, 1]
    run = runs_at(tmp_path)[0]
    curve = curve_of(run, found, "val_loss")
    assert ([it.position.batches for it in curve.line], curve.left) == ([100, 200, 300, 400, 500, 600], ())


def test_branch_from_before_a_further_fit_begins_in_the_first(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.session(4)
    story.session(2, story.files[3], is_further=True)
    story.session(3, story.files[2])
    assert [(it.number, it.depth, it.is_on_the_line, it.parent and it.parent.number) for it in tree(tmp_path)] == [
        (1, 0, True, None),
        (2, 1, False, 1),
        (3, 0, True, 1),
    ]


def test_attempt_that_ended_with_an_exception_has_failed(tmp_path: Path) -> None:
    Story(tmp_path).session(1, ended="ValueError: no more data")
    assert [it.fate for it in tree(tmp_path)] == ["failed"]


def test_curve_goes_along_the_line_to_the_newest_file_and_has_branches_apart(tmp_path: Path) -> None:
    with_kills_and_branches(tmp_path)
    run = runs_at(tmp_path)[0]
    curve = curve_of(run, attempts_of(run), "val_loss")
    assert [it.position.batches for it in curve.line] == list(range(100, 7400, 100))
    ends = [(branch[0].position.batches, branch[-1].position.batches) for branch in curve.left]
    assert ends == [(2000, 2500), (4000, 5000), (5000, 6200)]


def test_curve_of_another_metric_has_its_values(tmp_path: Path) -> None:
    Story(tmp_path, more=("accuracy",)).session(3)
    run = runs_at(tmp_path)[0]
    assert metric_names(run) == ["val_loss", "accuracy"]
    assert [it.value for it in curve_of(run, attempts_of(run), "accuracy").line] == [1.0, 0.5, 1 / 3]


def test_runs_are_named_by_what_tells_their_directories_apart(tmp_path: Path) -> None:
    for name in ("a", "b/c"):
        Story(tmp_path / "logs" / name / "version_0" / "checkpoints", run_id=name).session(1)
    assert {run.name for run in runs_at(tmp_path)} == {"a", "b/c"}


def test_runs_in_one_directory_are_named_by_their_ids(make: Make, tmp_path: Path) -> None:
    make("runs/a.ckpt", run_id="first")
    make("runs/b.ckpt", run_id="second")
    assert {run.name for run in runs_at(tmp_path)} == {"first", "second"}


def test_damaged_file_belongs_to_the_run_that_has_its_directory_alone(make: Make, tmp_path: Path) -> None:
    make("one/a.ckpt", run_id="one")
    make("two/a.ckpt", run_id="two")
    make("two/b.ckpt", run_id="three")
    for name in ("one", "two"):
        (tmp_path / name / "torn.ckpt").write_bytes(b"PK")
    runs, lost = runs_of(scan(tmp_path), Checks())
    assert [(run.run_id, len(run.unreadable)) for run in runs if run.unreadable] == [("one", 1)]
    assert [it.path for it in lost] == [str(tmp_path / "two" / "torn.ckpt")]


def test_changes_of_a_first_session_are_none_and_unknown_commits_are_said(tmp_path: Path) -> None:
    record = Story(tmp_path).session(1).history.sessions[0]
    assert changes_between(None, record) == changes_between(record, record) == []
    assert "none" in changes_between(record, replace(record, commit=None, is_dirty=None))[0]


def test_check_of_large_files_is_not_made_unless_asked_for(make: Make, tmp_path: Path) -> None:
    make("a.ckpt")
    infos = [replace(info, size=3 << 30) for info in Checkpoints(tmp_path)]
    assert "Not checked: the files have 3.22 GB in all" in check(infos, verify=None).in_words()
    assert check(infos, verify=True).problems == {infos[0].path: None}
