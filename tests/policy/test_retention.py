"""Which checkpoints stay."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from checkpointable.policy.retention import Best, Newest

NAN, INF = math.nan, math.inf


def judged(best: Best, scores: list[float]) -> Best:
    """What is kept after a run that logged these scores; file names are ``a``, ``b`` ..."""
    for name, score in zip("abcdefghijklmnopqrstuvwxyz", scores, strict=False):
        if best.admits(score):
            best = best.add(name, score)
    return best


def test_best_of_falling_scores_is_the_latest():
    assert judged(Best(keep=1), [3.0, 2.0, 1.0]).scores == {"c": 1.0}


def test_best_of_rising_scores_in_mode_min_is_the_first():
    assert judged(Best(keep=1), [1.0, 2.0, 3.0]).scores == {"a": 1.0}


def test_best_in_mode_max_is_the_highest():
    best = judged(Best(keep=2, mode="max"), [1.0, 3.0, 2.0, 0.5])
    assert list(best.scores) == ["b", "c"]
    assert (best.name, best.worst) == ("b", "c")


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("keep", [1, 3, -1])
def test_nan_is_never_admitted(mode, keep):
    assert not Best(keep=keep, mode=mode).admits(NAN)
    assert not judged(Best(keep=keep, mode=mode), [1.0]).admits(NAN)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_nan_first_does_not_block_later_scores(mode):
    best = judged(Best(keep=1, mode=mode), [NAN, NAN, 5.0, NAN])
    assert best.scores == {"c": 5.0}


def test_nan_taken_for_a_score_would_block_later_ones():
    """The twin: what a comparison without the check for NaN does."""
    kept = NAN
    for score in (5.0, 1.0):
        kept = score if kept - score > 0 else kept
    assert math.isnan(kept)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_equal_once_full_is_not_better(mode):
    full = judged(Best(keep=2, mode=mode), [1.0, 1.0])
    assert list(full.scores) == ["a", "b"]
    assert not full.admits(1.0)


def test_equal_while_there_is_room_is_admitted_behind_the_earlier():
    assert list(judged(Best(keep=3), [1.0, 1.0, 0.5]).scores) == ["c", "a", "b"]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_zero_is_a_value_like_any_other(mode):
    best = judged(Best(keep=1, mode=mode), [0.0])
    assert best.scores == {"a": 0.0}
    assert best.name == "a"
    assert best.admits(-1.0 if mode == "min" else 1.0)
    assert not best.admits(1.0 if mode == "min" else -1.0)
    assert judged(Best(keep=1, mode=mode), [1.0 if mode == "min" else -1.0, 0.0]).scores == {"b": 0.0}


@pytest.mark.parametrize(("mode", "worse"), [("min", INF), ("max", -INF)])
def test_infinity_is_a_score_that_anything_beats(mode, worse):
    best = judged(Best(keep=1, mode=mode), [worse])
    assert best.scores == {"a": worse}
    assert not best.admits(worse)
    assert best.admits(1e300 if mode == "min" else -1e300)


@pytest.mark.parametrize(("mode", "close", "clear"), [("min", 0.95, 0.75), ("max", 1.05, 1.25)])
def test_min_delta_must_be_beaten_once_full(mode, close, clear):
    best = judged(Best(keep=1, mode=mode, min_delta=0.1), [1.0])
    assert not best.admits(close)
    assert best.admits(clear)
    assert judged(Best(keep=1, mode=mode), [1.0]).admits(close)  # the twin: without a min_delta it is better


def test_min_delta_met_exactly_is_not_beaten():
    assert not judged(Best(keep=1, min_delta=0.25), [1.0]).admits(0.75)


def test_min_delta_is_measured_against_the_worst_kept():
    best = judged(Best(keep=2, min_delta=0.5), [1.0, 2.0])
    assert best.admits(1.25)
    assert not best.admits(1.75)


def test_keep_none_admits_nothing():
    best = Best(keep=0)
    assert not best.admits(0.0)
    assert judged(best, [3.0, 2.0]).scores == {}
    assert best.name is None
    assert best.worst is None


def test_keep_all_admits_every_number_and_orders_them():
    best = judged(Best(keep=-1), [2.0, 3.0, NAN, 1.0, 2.0])
    assert list(best.scores) == ["d", "a", "e", "b"]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("keep", [1, 2, 5])
def test_best_of_random_scores_is_what_sorting_gives(mode, keep):
    rng = random.Random(keep)
    for _ in range(50):
        scores = [rng.choice([0.0, 1.0, 2.0, -1.0, 0.5, NAN, INF, -INF]) for _ in range(rng.randrange(1, 20))]
        numbers = [(name, s) for name, s in zip("abcdefghijklmnopqrstuvwxyz", scores, strict=False) if s == s]
        expected = sorted(numbers, key=lambda item: item[1] if mode == "min" else -item[1])[:keep]
        assert list(judged(Best(keep=keep, mode=mode), scores).scores.items()) == expected


def test_best_added_again_takes_its_new_place():
    best = judged(Best(keep=3), [1.0, 2.0, 3.0]).add("a", 2.5)
    assert list(best.scores) == ["b", "a", "c"]


def test_best_add_leaves_the_old_state_as_it_was():
    before = judged(Best(keep=1), [2.0])
    after = before.add("b", 1.0)
    assert (before.scores, after.scores) == ({"a": 2.0}, {"b": 1.0})


def test_best_without_names_makes_room_for_others():
    full = judged(Best(keep=2), [1.0, 2.0])
    assert not full.admits(9.0)
    freed = full.without(["a", "never there"])
    assert freed.scores == {"b": 2.0}
    assert freed.admits(9.0)
    assert full.scores == {"a": 1.0, "b": 2.0}


def test_newest_over_its_number_drops_the_oldest():
    states = list(itertools.accumulate("abcd", Newest.add, initial=Newest(keep=2)))
    assert [state.names for state in states] == [(), ("a",), ("a", "b"), ("b", "c"), ("c", "d")]


@pytest.mark.parametrize(("keep", "kept"), [(0, ()), (1, ("c",)), (3, ("a", "b", "c")), (-1, ("a", "b", "c"))])
def test_newest_keeps_as_many_as_asked(keep, kept):
    state = Newest(keep=keep)
    for name in "abc":
        state = state.add(name)
    assert state.names == kept


def test_newest_added_again_moves_to_the_end_without_pushing_others_out():
    assert Newest(keep=3, names=("a", "b", "c")).add("a").names == ("b", "c", "a")


def test_newest_without_names_keeps_the_order_of_the_rest():
    full = Newest(keep=3, names=("a", "b", "c"))
    assert full.without({"b", "never there"}).names == ("a", "c")
    assert full.names == ("a", "b", "c")


def test_union_of_best_and_newest_keeps_a_file_until_both_let_go():
    best, newest, kept = Best(keep=1), Newest(keep=1), []
    for name, score in zip("abcd", [2.0, 1.0, 3.0, 0.5], strict=True):
        best = best.add(name, score) if best.admits(score) else best
        newest = newest.add(name)
        kept.append({*best.scores, *newest.names})
    assert kept == [{"a"}, {"b"}, {"b", "c"}, {"d"}]
