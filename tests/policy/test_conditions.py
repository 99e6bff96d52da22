"""When a save is due."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from checkpointable.policy.conditions import (
    AnyOf,
    Condition,
    EveryNBatches,
    EveryNEpochs,
    EveryNSeconds,
    EveryNTrainSteps,
    SafePoint,
)
from checkpointable.policy.options import Options
from checkpointable.policy.position import Ended, Position
from checkpointable.policy.reasons import PERIODIC, Reason


def after_batch(position: Position, previous: Position = Position(), seconds: float = 0.0) -> SafePoint:  # noqa: B008
    return SafePoint(ended=Ended.BATCH, position=position, previous=previous, seconds=seconds)


def after_epoch(epoch: int) -> SafePoint:
    position = Position(epoch=epoch, batch=4, step=4 * (epoch + 1), batches=4 * (epoch + 1))
    return SafePoint(ended=Ended.EPOCH, position=position, previous=position)


def due(condition: Condition, positions: list[Position]) -> list[set[str]]:
    """The reasons after each batch of a run that passes through these positions."""
    before = [Position(), *positions]
    return [set(condition.reasons(after_batch(new, old))) for old, new in zip(before, positions, strict=False)]


def epoch_of(batches: int, *, epoch: int = 0, done: int = 0, window: int = 1) -> list[Position]:
    """An epoch's positions; the step moves once per window of batches."""
    return [Position(epoch=epoch, batch=n, step=(done + n) // window, batches=done + n) for n in range(1, batches + 1)]


def test_interval_within_an_epoch_is_due_at_every_multiple():
    assert due(EveryNBatches(3), epoch_of(7)) == [set(), set(), {"interval"}, set(), set(), {"interval"}, set()]


def test_interval_of_one_is_due_after_every_batch():
    assert due(EveryNBatches(1), epoch_of(4)) == [{"interval"}] * 4


def test_interval_over_two_epochs_starts_again_with_the_epoch():
    run = [*epoch_of(4), *epoch_of(4, epoch=1, done=4)]
    reasons = due(EveryNBatches(3), run)
    assert [(p.epoch, p.batch) for p, r in zip(run, reasons, strict=True) if r] == [(0, 3), (1, 3)]
    counted_in_all = [p for p in run if p.batches % 3 == 0]  # the twin: a count that continues over the epochs
    assert [(p.epoch, p.batch) for p in counted_in_all] != [(0, 3), (1, 3)]


def test_interval_longer_than_the_epoch_is_never_due():
    run = [*epoch_of(4), *epoch_of(4, epoch=1, done=4), *epoch_of(4, epoch=2, done=8)]
    assert due(EveryNBatches(5), run) == [set()] * 12


def test_interval_does_not_look_at_the_step():
    assert due(EveryNBatches(2), epoch_of(4, window=4)) == [set(), {"interval"}, set(), {"interval"}]


def test_steps_over_windows_are_due_once_where_the_step_moves():
    run = epoch_of(8, window=2)
    assert [p.step for p in run] == [0, 1, 1, 2, 2, 3, 3, 4]
    reasons = due(EveryNTrainSteps(2), run)
    assert [p.batch for p, r in zip(run, reasons, strict=True) if r == {"step"}] == [4, 8]
    standing_still = [p.batch for p in run if p.step % 2 == 0]  # the twin: asks the step alone, not whether it moved
    assert standing_still != [4, 8]


def test_steps_before_the_first_step_are_not_due():
    assert due(EveryNTrainSteps(1), [Position(batch=1, batches=1)]) == [set()]


def test_steps_over_two_epochs_continue_to_count():
    run = [*epoch_of(4), *epoch_of(4, epoch=1, done=4)]
    reasons = due(EveryNTrainSteps(3), run)
    assert [p.step for p, r in zip(run, reasons, strict=True) if r] == [3, 6]


def test_steps_that_jump_over_a_multiple_are_due():
    before, now = Position(batch=1, step=3, batches=1), Position(batch=2, step=5, batches=2)
    assert EveryNTrainSteps(4).reasons(after_batch(now, before)) == {"step"}
    assert now.step % 4 != 0  # the twin: a remainder would miss it


def test_conditions_due_together_name_all_reasons():
    both = AnyOf((EveryNBatches(2), EveryNTrainSteps(2)))
    assert due(both, epoch_of(4)) == [set(), {"interval", "step"}, set(), {"interval", "step"}]


def test_conditions_due_apart_name_their_own_reason():
    reasons = due(AnyOf((EveryNBatches(3), EveryNTrainSteps(2))), epoch_of(6))
    assert reasons == [set(), {"step"}, {"interval"}, {"step"}, set(), {"interval", "step"}]


@pytest.mark.parametrize(("epochs", "saved"), [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (4, [3]), (7, [])])
@pytest.mark.parametrize("forever", [False, True])
def test_epochs_are_due_at_the_end_of_every_nth(epochs, saved, forever):
    condition = EveryNEpochs(epochs, forever=forever)
    expected = {"epoch", "kept_epoch"} if forever else {"epoch"}
    assert [epoch for epoch in range(6) if condition.reasons(after_epoch(epoch)) == expected] == saved
    assert all(not condition.reasons(after_epoch(epoch)) for epoch in range(6) if epoch not in saved)


@pytest.mark.parametrize("condition", [EveryNEpochs(1), EveryNEpochs(1, forever=True)])
def test_epochs_are_never_due_after_a_batch(condition):
    assert due(condition, epoch_of(4)) == [set()] * 4


@pytest.mark.parametrize("condition", [EveryNBatches(1), EveryNTrainSteps(1), EveryNSeconds(0.0)])
def test_conditions_on_batches_are_never_due_after_an_epoch(condition):
    assert condition.reasons(after_epoch(0)) == set()


@pytest.mark.parametrize(("passed", "expected"), [(0.0, set()), (9.99, set()), (10.0, {"time"}), (11.0, {"time"})])
def test_seconds_are_due_once_they_have_passed(passed, expected):
    assert EveryNSeconds(10.0).reasons(after_batch(Position(batch=1, batches=1), seconds=passed)) == expected


def test_any_of_no_conditions_is_false_and_never_due():
    never = AnyOf()
    assert due(never, epoch_of(5)) == [set()] * 5
    assert never.reasons(after_epoch(0)) == set()
    assert not never


def test_condition_of_the_users_own_combines_with_ours():
    class EveryNSamples:
        def __init__(self, samples: int, batch_size: int) -> None:
            self.samples, self.batch_size = samples, batch_size

        def reasons(self, point: SafePoint) -> set[Reason]:
            before, now = (p.batches * self.batch_size // self.samples for p in (point.previous, point.position))
            return {Reason.INTERVAL} if now > before else set()

    reasons = due(AnyOf((EveryNSamples(10, 4), EveryNTrainSteps(5))), epoch_of(5))
    assert reasons == [set(), set(), {"interval"}, set(), {"interval", "step"}]


def test_conditions_of_options_take_every_argument():
    options = Options(
        save_interval=7,
        every_n_train_steps=5,
        train_time_interval=timedelta(minutes=2),
        every_n_epochs=3,
        keep_every_n_epochs=10,
    )
    every = (EveryNBatches(7), EveryNTrainSteps(5), EveryNSeconds(120.0), EveryNEpochs(3))
    assert options.conditions == AnyOf((*every, EveryNEpochs(10, forever=True)))


def test_default_options_measure_the_interval():
    assert Options().measures_interval
    assert Options().conditions == AnyOf()
    assert Options().saves_anything


@pytest.mark.parametrize("never", [0, None])
def test_options_of_zero_or_none_are_never(never):
    names = ("every_n_train_steps", "every_n_epochs", "keep_every_n_epochs")
    assert Options(save_interval=None, **dict.fromkeys(names, never)).conditions == AnyOf()


def test_options_that_keep_no_newest_save_only_what_is_kept_for_ever():
    asked: dict[str, Any] = {
        "save_interval": 1,
        "every_n_train_steps": 1,
        "train_time_interval": timedelta(seconds=1),
        "every_n_epochs": 1,
    }
    assert not Options(save_last_k=0, **asked).conditions
    assert not Options(save_last_k=0, save_interval="auto").measures_interval
    assert Options(save_last_k=0, keep_every_n_epochs=2, **asked).conditions == AnyOf((EveryNEpochs(2, forever=True),))
    assert len(Options(save_last_k=-1, **asked).conditions.conditions) == 4


OFF: dict[str, Any] = {"save_interval": None, "save_top_k": 0, "save_on_exception": False, "save_last": False}


@pytest.mark.parametrize(
    "on",
    [
        {"save_interval": 3},
        {"save_interval": "auto"},
        {"every_n_epochs": 1},
        {"keep_every_n_epochs": 1},
        {"save_top_k": 1},
        {"save_on_exception": True},
        {"save_last": True},
    ],
)
def test_options_with_any_one_condition_save_something(on):
    assert not Options(**OFF).saves_anything
    assert Options(**{**OFF, **on}).saves_anything


def test_periodic_reasons_come_again_soon():
    assert {"interval", "step", "time"} == PERIODIC


def test_position_later_in_the_run_compares_as_greater():
    run = [Position(0, 3, 3, 3), Position(0, 4, 4, 4), Position(1, 1, 5, 5), Position(1, 2, 5, 6)]
    assert sorted([run[2], run[0], run[3], run[1]]) == run


def test_position_as_text_names_epoch_batch_and_step():
    assert str(Position(epoch=2, batch=3, step=4, batches=5)) == "epoch 2, batch 3, step 4"
