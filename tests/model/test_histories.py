"""Histories of a directory, made by hypothesis: whatever happens, it holds what the model says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import Phase
from hypothesis.stateful import run_state_machine_as_test
from model.machine import Histories, profile

from checkpointable.catalog import select
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.retention import KeepBest, KeepNewest
from checkpointable.saving import room
from checkpointable.saving.save_task import SaveTask
from checkpointable.storage import commit


def test_histories_hold_what_the_model_says():
    run_state_machine_as_test(Histories, settings=profile(10, 25))


@pytest.mark.sweep
def test_sweep_of_ten_thousand_steps():
    run_state_machine_as_test(Histories, settings=profile(250, 50))


TWINS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {}


def twin(break_it: Callable[[pytest.MonkeyPatch], None]) -> Callable[[pytest.MonkeyPatch], None]:
    """A mechanism that is broken, which the machine has to find."""
    TWINS[break_it.__name__] = break_it
    return break_it


@twin
def deletes_before_the_new_file_is_durable(patch):
    def delete_first(task: SaveTask) -> None:
        task._delete(task.kept.replaced_by(task.request.file_at("the next one")))

    patch.setattr(SaveTask, "_make_room", delete_first)


@twin
def latest_reads_no_file_through(patch):
    patch.setattr(select.checkpoint, "problem", lambda path: None)


@twin
def files_of_other_runs_are_taken_for_own(patch):
    patch.setattr(SaveTask, "_is_own", lambda task, path: True)


@twin
def branches_are_taken_for_own(patch):
    patch.setattr(Lineage, "includes", lambda lineage, attempt, batches: True)


@twin
def one_too_few_is_kept(patch):
    kept = KeepNewest.kept
    patch.setattr(KeepNewest, "kept", lambda rule, files: kept(rule, files)[1:])


@twin
def later_of_two_equal_scores_is_best(patch):
    kept = KeepBest.kept
    patch.setattr(KeepBest, "kept", lambda rule, files: kept(rule, list(reversed(files))))


@twin
def files_are_written_in_place(patch):
    def in_place(path, write, *, problem, overwrite):
        if not overwrite and path.exists():
            raise FileExistsError(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w+b") as file:
            write(file)

    patch.setattr(commit, "commit", in_place)


@twin
def no_start_removes_leftovers(patch):
    patch.setattr(commit, "is_abandoned", lambda leftover, *, delete=False: False)


@twin
def best_makes_room_by_deleting_the_newest(patch):
    patch.setattr(room, "_newest_intact", lambda store, kept: kept.best_path)


def assert_machine_finds_it(histories: int) -> None:
    with pytest.raises((AssertionError, FileNotFoundError)):
        run_state_machine_as_test(Histories, settings=profile(histories, 40, phases=[Phase.generate]))


def test_machine_finds_what_is_broken(monkeypatch):
    latest_reads_no_file_through(monkeypatch)
    assert_machine_finds_it(100)


@pytest.mark.sweep
@pytest.mark.parametrize("broken", sorted(TWINS))
def test_sweep_machine_finds_what_is_broken(monkeypatch, broken):
    TWINS[broken](monkeypatch)
    assert_machine_finds_it(300)
