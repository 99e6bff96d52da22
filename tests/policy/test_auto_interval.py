"""The interval that is found out: what saving costs stays within the budget. On a clock of the tests' own."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections import deque
from collections.abc import Callable

import pytest

from checkpointable.policy.auto_interval import Auto

BUDGET = 0.01


class Training:
    """Trains and saves on a clock of its own, as the desk does: one save at a time, measured when it is done.

    Attributes:
        batch: Seconds of a batch, by its number.
        blocked: Seconds for which a save holds the training, by its number.
        slowed: Seconds by which it slows the batches that run beside it, in all.
        busy: Seconds until it is on disk.
        longest: Seconds between two saves, at most.
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
        self.clock = self.cost = self.longest = 0.0
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
        self.longest = max(self.longest, self.clock - self._begun)
        self._begun, self._busy, self._extra = self.clock, self.busy(number), self.slowed(number)
        self._under_way = True
        self.auto.note_start()
        self.saves.append(self.done)


def measured(*saves: tuple[float, float], batch: float = 0.1) -> Auto:
    """After saves of so many blocked and busy seconds, with one batch before each."""
    auto = Auto(BUDGET)
    for blocked, busy in saves:
        auto.note_batch(batch, writing=False)
        auto.note_save(blocked=blocked, busy=busy)
    return auto


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
    training.train(50 * max(int(0.12 / (batch * budget)), int(8 / batch), 2))
    assert training.share <= 1.1 * budget
    assert len(training.saves) > 20


def test_disk_is_busy_a_tenth_of_the_time_at_most():
    """Batches of half a second, and a state that takes one to write: the budget alone would save every second batch."""
    training = Training(batch=0.5, blocked=0.01, slowed=0.0, busy=1.0).train(2000)
    assert training.auto.interval == 20
    assert len(training.saves) * 1.0 <= 0.105 * training.clock
    assert training.overlaps == 0


@pytest.mark.parametrize("number", [1, 2, 8, 20])
def test_one_slow_save_moves_nothing(number):
    """A hiccup of three seconds, and a minute until it is on disk."""
    slow = Training(
        blocked=lambda save: 3.0 if save == number else 0.02, busy=lambda save: 60.0 if save == number else 0.8
    )
    assert slow.train(10_000).intervals[1:] == pytest.approx([120] * (len(slow.intervals) - 1), abs=15)


def test_one_slow_save_would_decide_if_it_were_the_only_one_that_counts(monkeypatch):
    """The twin."""
    monkeypatch.setattr("checkpointable.policy.auto_interval._SECOND_SECONDS", math.inf)
    training = Training(blocked=lambda save: 3.0 if save == 8 else 0.02)
    training.auto._costs, training.auto._busy = deque(maxlen=1), deque(maxlen=1)
    training.train(10_000)
    assert max(training.intervals) > 3000


@pytest.mark.parametrize("first", [(20.0, 30.0), (0.02, 600.0), (1e6, 0.0)])
def test_second_save_comes_within_a_minute_however_slow_the_first(first):
    assert measured(first).interval == 600
    assert measured(first, (0.02, 0.1)).interval == 20


def test_batches_a_hundred_times_slower_do_not_hold_the_next_save_back():
    """The budget allows a save every 12 seconds; the batches counted for them would now take 1,200."""
    training = Training(batch=lambda n: 0.01 if n < 8000 else 1.0).train(8400)
    assert 12 <= training.longest <= 12 + 2 * 1.0
    assert training.auto.interval in (12, 13)


def test_batches_alone_decide_where_ranks_agree():
    """Ranks measure different seconds, and must save together. The twin of the one above."""
    training = Training(batch=lambda n: 0.01 if n < 8000 else 1.0).train(7900)
    training.auto.agree(1200)
    assert training.train(2000).longest > 500


def test_seconds_count_from_the_last_save():
    auto = measured((0.02, 0.1))
    for _ in range(3):
        auto.note_start()
        auto.note_batch(1.9, writing=False)
        assert not auto.is_due(1)
    auto.note_batch(0.2, writing=False)
    assert auto.is_due(2)


def test_news_tell_the_truth_where_some_batches_are_longer():
    """As where gradients are accumulated: every eighth batch steps, and takes ten times as long."""
    training = Training(batch=lambda n: 0.5 if n % 8 == 7 else 0.05, blocked=0.12, slowed=0.0).train(10_000)
    apart = [later - earlier for earlier, later in itertools.pairwise(training.saves[3:])]
    assert statistics.fmean(apart) == pytest.approx(training.auto.interval, rel=0.05)
    assert training.auto.news() == f"saving every {training.auto.interval} batches: 1.0 % of training time"
    assert 0.8 * BUDGET <= training.share <= BUDGET


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
        with_pauses.clock += 60.0 if not with_pauses._under_way else 0.0
        without.train(100)
    assert with_pauses.auto.interval == without.auto.interval
    assert with_pauses.saves == without.saves


def test_save_without_any_batch_measures_nothing():
    auto = Auto(BUDGET)
    auto.note_save(blocked=1.0, busy=1.0)
    assert auto.interval is None
    auto.note_batch(0.1, writing=True)
    auto.note_save(blocked=0.01, busy=0.05)
    assert auto.interval == 10


def test_batches_that_take_no_time_give_a_number_all_the_same():
    assert measured((0.01, 0.1), batch=0.0).interval >= 10**8


def test_save_that_costs_nothing_has_an_interval_of_two():
    auto = measured((0.0, 0.0), batch=1.0)
    assert auto.interval == 2
    assert auto.is_due(2)
    assert not auto.is_due(1)


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
    auto, said = measured((0.1, 0.0)), []
    for blocked in [0.1] * 5 + [0.19] * 5 + [0.21] * 5 + [0.11] * 5 + [0.1] * 5 + [0.6] * 5:
        said += [auto.interval] if auto.news() else []
        assert auto.news() is None
        auto.note_save(blocked=blocked, busy=0.0)
    assert said == [100, 210, 100, 600]


def test_news_state_the_interval_and_its_share():
    assert measured((0.12, 0.8)).news() == "saving every 120 batches: 1.0 % of training time"
    assert measured((1.2, 0.8)).news() == "saving every 600 batches: 2.0 % of training time"
    assert measured((0.12, 2.4)).news() == "saving every 240 batches: 0.5 % of training time"


def test_failures_make_tries_rarer_but_not_rarer_than_every_ten_minutes():
    auto = Auto(BUDGET)
    auto.note_failure()
    assert auto.interval == 100
    auto, tries = measured((0.5, 1.0), batch=1.0), []
    for _ in range(6):
        tries.append(auto.interval)
        auto.note_failure()
    assert tries == [50, 100, 200, 400, 600, 600]
