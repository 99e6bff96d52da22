"""The interval that is found out: what saving costs stays within the budget. On a clock of the tests' own."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable

import pytest

from checkpointable.policy.auto import Auto

BUDGET = 0.01


class Training:
    """Trains and saves on a clock of its own, as the desk does: one save at a time, measured when it is done.

    Attributes:
        batch: Seconds of a batch, by its number.
        blocked: Seconds for which a save holds the training, by its number.
        slowed: Seconds by which it slows the batches that run beside it, in all.
        busy: Seconds until it is on disk.
    """

    def __init__(
        self,
        batch: Callable[[int], float] | float = 0.1,
        blocked: Callable[[int], float] | float = 0.02,
        slowed: Callable[[int], float] | float = 0.1,
        busy: Callable[[int], float] | float = 0.8,
        budget: float = BUDGET,
    ) -> None:
        self.batch, self.blocked, self.slowed, self.busy = (
            given if callable(given) else lambda _, given=given: given for given in (batch, blocked, slowed, busy)
        )
        self.auto = Auto(budget)
        self.clock = self.cost = 0.0
        self.done = 0
        self.saves: list[int] = []
        self.intervals: list[int] = []
        self.overlaps = 0
        self._begun = self._extra = self._busy = 0.0
        self._under_way = False

    def train(self, batches: int) -> Training:
        for _ in range(batches):
            self._train_one()
            due = not self.saves or self.auto.is_due(self.done - self.saves[-1])
            if self._under_way and self.clock >= self._begun + self._busy:
                self.auto.note_save(blocked=self.blocked(len(self.saves) - 1), busy=self._busy)
                self.intervals.append(self.auto.interval or 0)
                self._under_way = False
            if due and self._under_way:
                self.overlaps += 1
            elif due:
                self._save()
        return self

    @property
    def share(self) -> float:
        """Of the time of the training alone."""
        return self.cost / (self.clock - self.cost)

    def _train_one(self) -> None:
        seconds = self.batch(self.done)
        slower = 0.0
        if self._under_way:
            slower = min(self._extra, seconds * self.slowed(len(self.saves) - 1) / self._busy)
            self._extra -= slower
        self.clock += seconds + slower
        self.cost += slower
        self.done += 1
        self.auto.note_batch(seconds + slower, writing=self._under_way)

    def _save(self) -> None:
        number = len(self.saves)
        self.clock += self.blocked(number)
        self.cost += self.blocked(number)
        self._begun, self._busy, self._extra = self.clock, self.busy(number), self.slowed(number)
        self._under_way = True
        self.saves.append(self.done)


def noisy(seconds: float, seed: int, spread: float = 0.3) -> Callable[[int], float]:
    rng = random.Random(seed)
    return lambda _: seconds * (1 + spread * rng.expovariate(1.0))


def test_interval_before_anything_is_measured_is_unknown_and_nothing_is_due():
    auto = Auto(BUDGET)
    assert auto.interval is None
    assert auto.news() is None
    assert not auto.is_due(10**9)


def test_interval_with_constant_times_is_the_shortest_within_the_budget():
    training = Training().train(3000)
    assert training.auto.interval == pytest.approx((0.02 + 0.1) / (BUDGET * 0.1), abs=2)
    assert training.share <= 1.05 * BUDGET
    assert {later - earlier for earlier, later in itertools.pairwise(training.saves[3:])} == {training.auto.interval}


@pytest.mark.parametrize("budget", [0.001, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("batch", [0.01, 1.0, 60.0])
def test_interval_of_any_training_keeps_within_its_budget(batch, budget):
    training = Training(batch=batch, budget=budget)
    training.train(50 * max(int(0.12 / (batch * budget)), int(0.8 / batch), 2))
    assert training.share <= 1.1 * budget
    assert len(training.saves) > 20


def test_interval_never_has_a_save_begin_before_the_one_before_is_on_disk():
    training = Training(blocked=0.0, slowed=0.0, busy=7.3).train(2000)
    assert training.overlaps == 0
    assert 74 <= training.auto.interval <= 75


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_interval_follows_the_batch_time_both_ways(factor):
    before = Training().train(2000)
    interval = before.auto.interval
    change = before.done
    training = Training(batch=lambda n: 0.1 if n < change else 0.1 * factor).train(change + 8000)
    assert training.auto.interval == pytest.approx(interval / factor, rel=0.1)
    assert training.share <= 1.1 * BUDGET


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_interval_follows_the_cost_both_ways(factor):
    def changing(seconds):
        return lambda save: seconds if save < 8 else seconds * factor

    training = Training(blocked=changing(0.02), slowed=changing(0.1), busy=changing(0.8)).train(20_000)
    assert training.intervals[5] == pytest.approx(120, abs=2)
    assert training.auto.interval == pytest.approx(120 * factor, rel=0.15)
    assert training.share <= 1.25 * BUDGET


@pytest.mark.parametrize("slow", [0.5, 10.0, 300.0])
@pytest.mark.parametrize("blocked", [0.0, 0.014])
def test_interval_after_a_slow_first_batch_is_put_right(slow, blocked):
    """As where the first batch compiles: taken for the usual one, it would allow a save after every batch."""
    training = Training(batch=lambda n: slow if n == 0 else 0.1, blocked=blocked, slowed=0.24).train(10_000)
    assert training.auto.interval == pytest.approx((blocked + 0.24) / (BUDGET * 0.1), rel=0.15)
    assert training.share <= 1.2 * BUDGET


def test_interval_after_batches_that_get_quicker_is_put_right_though_a_save_is_always_under_way():
    training = Training(batch=lambda n: 1.0 if n < 100 else 0.01, blocked=0.0, slowed=0.3, busy=2.0).train(100_000)
    assert training.share <= 1.25 * BUDGET


@pytest.mark.parametrize("seed", range(5))
def test_simulated_training_stays_within_one_and_a_half_budgets(seed):
    """Noisy batches, a slow first one and a slow first save, a disk that becomes ten times slower."""
    usual = noisy(0.1, seed)

    def slower(seconds):
        return lambda save: seconds * (20 if save == 0 else 1 if save < 30 else 10)

    training = Training(
        batch=lambda n: 5.0 if n == 0 else usual(n),
        blocked=slower(0.015),
        slowed=slower(0.08),
        busy=slower(0.6),
    )
    training.train(30_000)
    assert training.share <= 1.5 * BUDGET
    assert len(training.saves) > 40
    assert training.overlaps == 0 or training.overlaps < training.done / 100


def test_simulated_training_that_saves_all_the_time_is_beyond_the_budget():
    """The twin: a fixed short interval costs many times as much."""
    training = Training()
    training.auto.is_due = lambda batches: True
    assert training.train(3000).share > 5 * BUDGET


def test_pauses_between_batches_do_not_count():
    """A validation lies between two batches; it makes neither longer, and moves nothing."""
    with_pauses, without = Training(), Training()
    for _ in range(30):
        with_pauses.train(100)
        with_pauses.clock += 60.0
        without.train(100)
    assert with_pauses.auto.interval == pytest.approx(without.auto.interval, abs=2)


def test_save_without_any_batch_measures_nothing():
    auto = Auto(BUDGET)
    auto.note_save(blocked=1.0, busy=1.0)
    assert auto.interval is None
    auto.note_batch(0.1, writing=True)
    auto.note_save(blocked=0.01, busy=0.05)
    assert auto.interval == 10


def test_batches_that_take_no_time_give_a_number_all_the_same():
    auto = Auto(BUDGET)
    for _ in range(10):
        auto.note_batch(0.0, writing=False)
    auto.note_save(blocked=0.01, busy=0.1)
    assert auto.interval is not None
    assert auto.interval >= 10**8
    auto.note_save(blocked=0.0, busy=0.0)
    assert auto.interval >= 1


def test_save_that_costs_nothing_has_an_interval_of_one_or_two():
    auto = Auto(BUDGET)
    auto.note_batch(1.0, writing=False)
    auto.note_save(blocked=0.0, busy=0.0)
    assert auto.interval in (1, 2)
    assert auto.is_due(auto.interval)
    assert not auto.is_due(auto.interval - 1)


def test_cost_of_slower_batches_is_no_more_than_the_save_took():
    """Batches may be slow for other reasons: a save of a tenth of a second has not cost a minute."""
    auto = Auto(BUDGET)
    for _ in range(10):
        auto.note_batch(0.1, writing=False)
    for _ in range(3):
        auto.note_batch(20.0, writing=True)
    auto.note_save(blocked=0.0, busy=0.1)
    assert auto.interval == pytest.approx(0.1 / (BUDGET * 0.1), abs=1)


def test_news_come_first_and_when_the_interval_has_doubled_or_halved():
    cost = itertools.chain([0.1], [0.1, 0.12, 0.09, 0.3, 0.6, 0.6, 0.6, 0.6, 0.05, 0.02, 0.02, 0.02, 0.02])
    auto, said, lines = Auto(BUDGET), None, []
    for _ in range(64):
        auto.note_batch(0.1, writing=False)
    for blocked in cost:
        auto.note_save(blocked=blocked, busy=0.0)
        news = auto.news()
        changed = said is None or not said / 2 < auto.interval < said * 2
        assert (news is not None) == changed
        if news is not None:
            said = auto.interval
            lines.append(news)
        assert auto.news() is None
    assert len(lines) >= 3
    assert all(re.fullmatch(r"saving every \d+ batches: \d+\.\d % of training time", line) for line in lines)


def test_news_state_the_interval_and_its_share():
    auto = Auto(BUDGET)
    for _ in range(10):
        auto.note_batch(0.1, writing=False)
    auto.note_save(blocked=0.12, busy=0.8)
    assert auto.news() == "saving every 120 batches: 1.0 % of training time"


def test_failures_make_tries_rarer_but_not_rarer_than_every_ten_minutes():
    auto = Auto(BUDGET)
    auto.note_failure()
    assert auto.interval == 100
    auto.note_batch(1.0, writing=False)
    auto.note_save(blocked=0.5, busy=1.0)
    assert auto.interval == 50
    tries = []
    for _ in range(8):
        auto.note_failure()
        tries.append(auto.interval)
    assert tries == [100, 200, 400, 600, 600, 600, 600, 600]
