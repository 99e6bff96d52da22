"""Which files stay."""

from __future__ import annotations

import math
import random

import pytest

from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.policy.reasons import Reason
from checkpointable.policy.retention import KeepBest, KeepForever, KeepLast, KeepNewest, Retention, SavedFile

NAN, INF = math.nan, math.inf
NAMES = "abcdefghijklmnopqrstuvwxyz"


def file(path: str, *reasons: str, score: float | None = None) -> SavedFile:
    given = frozenset(map(Reason, reasons)) or frozenset({Reason.INTERVAL})
    return SavedFile(path=path, position=Position(), reasons=given, score=score)


def names(files) -> str:
    return "".join(it.path for it in files)


def judged(rule: KeepBest, scores: list[float]) -> dict[str, float]:
    """What is kept, best first, after a run that logged these scores; file names are ``a``, ``b`` ..."""
    files: list[SavedFile] = []
    for name, score in zip(NAMES, scores, strict=False):
        if rule.admits(score, [it.score for it in files]):
            files = [*files, file(name, "best", score=score)]
            stay = rule.kept(files)
            files = [it for it in files if it in stay]
    return {it.path: it.score for it in rule.kept(files)}


def test_best_of_falling_scores_is_the_latest():
    assert judged(KeepBest(1), [3.0, 2.0, 1.0]) == {"c": 1.0}


def test_best_of_rising_scores_in_mode_min_is_the_first():
    assert judged(KeepBest(1), [1.0, 2.0, 3.0]) == {"a": 1.0}


def test_best_in_mode_max_is_the_highest():
    assert list(judged(KeepBest(2, "max"), [1.0, 3.0, 2.0, 0.5])) == ["b", "c"]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("count", [1, 3, -1])
def test_nan_is_never_admitted_and_never_kept(mode, count):
    rule = KeepBest(count, mode)
    assert not rule.admits(NAN, [])
    assert not rule.admits(NAN, [1.0])
    assert rule.kept([file("a", "best", score=NAN)]) == []


@pytest.mark.parametrize("mode", ["min", "max"])
def test_nan_first_does_not_block_later_scores(mode):
    assert judged(KeepBest(1, mode), [NAN, NAN, 5.0, NAN]) == {"c": 5.0}


def test_nan_taken_for_a_score_would_block_later_ones():
    """The twin: what a comparison without the check for NaN does."""
    kept = NAN
    for score in (5.0, 1.0):
        kept = score if kept - score > 0 else kept
    assert math.isnan(kept)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_equal_once_full_is_not_better(mode):
    assert list(judged(KeepBest(2, mode), [1.0, 1.0, 1.0])) == ["a", "b"]


def test_equal_while_there_is_room_is_admitted_behind_the_earlier():
    assert list(judged(KeepBest(3), [1.0, 1.0, 0.5])) == ["c", "a", "b"]


@pytest.mark.parametrize(("mode", "better"), [("min", -1.0), ("max", 1.0)])
def test_zero_is_a_value_like_any_other(mode, better):
    rule = KeepBest(1, mode)
    assert judged(rule, [0.0]) == {"a": 0.0}
    assert rule.admits(better, [0.0])
    assert not rule.admits(-better, [0.0])
    assert judged(rule, [-better, 0.0]) == {"b": 0.0}


@pytest.mark.parametrize(("mode", "worse"), [("min", INF), ("max", -INF)])
def test_infinity_is_a_score_that_anything_beats(mode, worse):
    rule = KeepBest(1, mode)
    assert judged(rule, [worse]) == {"a": worse}
    assert not rule.admits(worse, [worse])
    assert rule.admits(1e300 if mode == "min" else -1e300, [worse])


@pytest.mark.parametrize(("mode", "close", "clear"), [("min", 0.95, 0.75), ("max", 1.05, 1.25)])
def test_min_delta_must_be_beaten_once_full(mode, close, clear):
    rule = KeepBest(1, mode, 0.1)
    assert not rule.admits(close, [1.0])
    assert rule.admits(clear, [1.0])
    assert KeepBest(1, mode).admits(close, [1.0])  # the twin: without a min_delta it is better


def test_min_delta_met_exactly_is_not_beaten():
    assert not KeepBest(1, min_delta=0.25).admits(0.75, [1.0])


def test_min_delta_is_measured_against_the_worst_kept():
    rule = KeepBest(2, min_delta=0.5)
    assert rule.admits(1.25, [1.0, 2.0])
    assert not rule.admits(1.75, [2.0, 1.0])


def test_keep_none_admits_nothing():
    assert not KeepBest(0).admits(0.0, [])
    assert judged(KeepBest(0), [3.0, 2.0]) == {}


def test_keep_all_admits_every_number_and_orders_them():
    assert list(judged(KeepBest(-1), [2.0, 3.0, NAN, 1.0, 2.0])) == ["d", "a", "e", "b"]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_best_of_random_scores_is_what_sorting_gives(mode, count):
    rng = random.Random(count)
    for _ in range(50):
        scores = [rng.choice([0.0, 1.0, 2.0, -1.0, 0.5, NAN, INF, -INF]) for _ in range(rng.randrange(1, 20))]
        numbers = [(name, s) for name, s in zip(NAMES, scores, strict=False) if s == s]
        expected = sorted(numbers, key=lambda item: item[1] if mode == "min" else -item[1])[:count]
        assert list(judged(KeepBest(count, mode), scores).items()) == expected


def test_files_without_a_score_are_never_best():
    assert KeepBest(-1).kept([file("a"), file("b", score=1.0)]) == [file("b", score=1.0)]


@pytest.mark.parametrize(("count", "kept"), [(0, ""), (1, "c"), (2, "bc"), (5, "abc"), (-1, "abc")])
def test_newest_keeps_as_many_as_asked(count, kept):
    assert names(KeepNewest(count).kept([file(name) for name in "abc"])) == kept


def test_newest_passes_over_files_that_are_only_best():
    files = [file("a"), file("b", "best", score=1.0), file("c", "best", "epoch", score=2.0)]
    assert names(KeepNewest(2).kept(files)) == "ac"


def test_last_keeps_the_newest_file_of_all_whatever_it_was_saved_for():
    assert names(KeepLast().kept([file("a"), file("b", "best", score=1.0)])) == "b"
    assert names(KeepLast().kept([])) == ""


def test_forever_keeps_files_by_the_reason_they_were_saved_for():
    files = [file("a", "epoch", "kept_epoch"), file("b", "epoch"), file("c", "best", "epoch", "kept_epoch", score=1.0)]
    assert names(KeepForever().kept(files)) == "ac"


def test_retention_keeps_a_file_until_every_rule_lets_go():
    rules, files, kept = Retention(best=KeepBest(1), newest=KeepNewest(1)), [], []
    for name, score in zip("abcd", [2.0, 1.0, 3.0, 0.5], strict=True):
        files.append(file(name, "interval", score=score))
        files = list(rules.kept(files))
        kept.append(names(files))
    assert kept == ["a", "b", "bc", "d"]


def test_retention_with_a_rule_of_the_users_own_keeps_what_that_keeps():
    class KeepVowels:
        def kept(self, files):
            return [it for it in files if it.path in "aeiou"]

    rules = Retention(best=KeepBest(0), newest=KeepNewest(1), others=(KeepVowels(),))
    assert names(rules.kept([file(name) for name in "abcdef"])) == "aef"


def test_retention_of_options_takes_every_argument():
    options = Options(save_top_k=3, mode="max", min_delta=0.5, save_last_k=-1)
    assert options.retention == Retention(best=KeepBest(3, "max", 0.5), newest=KeepNewest(-1))
    assert Options(monitor=None).retention.best.count == 0
