"""When a save comes due."""

from __future__ import annotations

from datetime import timedelta

import pytest

from checkpointable.policy.conditions import Conditions
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position


def due(conditions: Conditions, positions: list[Position]) -> list[set[str]]:
    """The reasons after each batch of a run that goes through these positions."""
    before = [Position(), *positions]
    return [set(conditions.after_batch(old, new)) for old, new in zip(before, positions, strict=False)]


def epoch_of(batches: int, *, epoch: int = 0, done: int = 0, window: int = 1) -> list[Position]:
    """An epoch's positions; the step moves once per window of batches."""
    return [Position(epoch=epoch, batch=n, step=(done + n) // window, batches=done + n) for n in range(1, batches + 1)]


def test_interval_within_an_epoch_is_due_at_every_multiple():
    assert due(Conditions(interval=3), epoch_of(7)) == [set(), set(), {"interval"}, set(), set(), {"interval"}, set()]


def test_interval_of_one_is_due_after_every_batch():
    assert due(Conditions(interval=1), epoch_of(4)) == [{"interval"}] * 4


def test_interval_over_two_epochs_starts_again_with_the_epoch():
    run = [*epoch_of(4), *epoch_of(4, epoch=1, done=4)]
    reasons = due(Conditions(interval=3), run)
    assert [(p.epoch, p.batch) for p, r in zip(run, reasons, strict=True) if r] == [(0, 3), (1, 3)]
    counted_in_all = [p for p in run if p.batches % 3 == 0]  # the twin: a count that goes on over the epochs
    assert [(p.epoch, p.batch) for p in counted_in_all] != [(0, 3), (1, 3)]


def test_interval_longer_than_the_epoch_is_never_due():
    run = [*epoch_of(4), *epoch_of(4, epoch=1, done=4), *epoch_of(4, epoch=2, done=8)]
    assert due(Conditions(interval=5), run) == [set()] * 12


def test_interval_does_not_look_at_the_step():
    assert due(Conditions(interval=2), epoch_of(4, window=4)) == [set(), {"interval"}, set(), {"interval"}]


def test_steps_over_windows_are_due_once_where_the_step_moves():
    run = epoch_of(8, window=2)
    assert [p.step for p in run] == [0, 1, 1, 2, 2, 3, 3, 4]
    reasons = due(Conditions(steps=2), run)
    assert [p.batch for p, r in zip(run, reasons, strict=True) if r == {"step"}] == [4, 8]
    standing_still = [p.batch for p in run if p.step % 2 == 0]  # the twin: asks the step alone, not whether it moved
    assert standing_still != [4, 8]


def test_steps_before_the_first_step_are_not_due():
    assert due(Conditions(steps=1), [Position(batch=1, batches=1)]) == [set()]


def test_steps_over_two_epochs_go_on_counting():
    run = [*epoch_of(4), *epoch_of(4, epoch=1, done=4)]
    reasons = due(Conditions(steps=3), run)
    assert [p.step for p, r in zip(run, reasons, strict=True) if r] == [3, 6]


def test_steps_that_jump_over_a_multiple_are_due():
    before, now = Position(batch=1, step=3, batches=1), Position(batch=2, step=5, batches=2)
    assert Conditions(steps=4).after_batch(before, now) == {"step"}
    assert now.step % 4 != 0  # the twin: a remainder would miss it


def test_interval_and_steps_due_together_name_both_reasons():
    conditions = Conditions(interval=2, steps=2)
    assert due(conditions, epoch_of(4)) == [set(), {"interval", "step"}, set(), {"interval", "step"}]


def test_interval_and_steps_due_apart_name_their_own_reason():
    reasons = due(Conditions(interval=3, steps=2), epoch_of(6))
    assert reasons == [set(), {"step"}, {"interval"}, {"step"}, set(), {"interval", "step"}]


@pytest.mark.parametrize(("epochs", "saved"), [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (4, [3]), (7, [])])
def test_epochs_are_due_at_the_end_of_every_nth(epochs, saved):
    conditions = Conditions(epochs=epochs)
    assert [epoch for epoch in range(6) if conditions.after_epoch(epoch) == {"epoch"}] == saved


def test_epochs_are_never_due_after_a_batch():
    assert due(Conditions(epochs=1), epoch_of(4)) == [set()] * 4


@pytest.mark.parametrize(("passed", "expected"), [(0.0, False), (9.99, False), (10.0, True), (11.0, True)])
def test_seconds_are_due_once_they_have_passed(passed, expected):
    assert Conditions(seconds=10.0).after_seconds(passed) is expected


def test_conditions_that_are_empty_are_never_due():
    never = Conditions()
    assert due(never, epoch_of(5)) == [set()] * 5
    assert never.after_epoch(0) == set()
    assert not never.after_seconds(1e9)
    assert not never


@pytest.mark.parametrize("one", [{"interval": 1}, {"steps": 1}, {"seconds": 0.5}, {"epochs": 1}])
def test_conditions_with_any_one_are_true(one):
    assert Conditions(**one)


def test_conditions_of_options_take_every_argument():
    options = Options(
        save_interval=7, every_n_train_steps=5, train_time_interval=timedelta(minutes=2), every_n_epochs=3
    )
    assert Conditions.of(options) == Conditions(interval=7, steps=5, seconds=120.0, epochs=3)


def test_conditions_of_default_options_are_an_interval_that_is_found_out():
    assert Conditions.of(Options()) == Conditions(auto=True)


@pytest.mark.parametrize("never", [0, None])
def test_conditions_of_steps_and_epochs_zero_or_none_are_never(never):
    options = Options(save_interval=None, every_n_train_steps=never, every_n_epochs=never)
    assert Conditions.of(options) == Conditions()
    assert not Conditions.of(options)


def test_conditions_of_no_newest_kept_are_all_off():
    asked = {
        "save_interval": 1,
        "every_n_train_steps": 1,
        "train_time_interval": timedelta(seconds=1),
        "every_n_epochs": 1,
    }
    assert not Conditions.of(Options(save_last_k=0, **asked))
    assert Conditions.of(Options(save_last_k=1, **asked)) == Conditions(interval=1, steps=1, seconds=1.0, epochs=1)
    assert Conditions.of(Options(save_last_k=-1, **asked))


def test_position_later_in_the_run_compares_as_greater():
    run = [Position(0, 3, 3, 3), Position(0, 4, 4, 4), Position(1, 1, 5, 5), Position(1, 2, 5, 6)]
    assert sorted([run[2], run[0], run[3], run[1]]) == run


def test_position_as_text_names_epoch_batch_and_step():
    assert str(Position(epoch=2, batch=3, step=4, batches=5)) == "epoch 2, batch 3, step 4"
