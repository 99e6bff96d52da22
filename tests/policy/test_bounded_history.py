"""The history of a run stays small, and keeps what a picture of the run needs."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointable.policy.as_builtin import as_builtin
from checkpointable.policy.bounded_history import _Thinnable, bounded, shortened, thinned, with_few_metrics
from checkpointable.policy.history import History, Point, SavedPoint, SessionRecord
from checkpointable.policy.position import Position


def size_of(part):
    return len(json.dumps(as_builtin(part))) + 1


def total(history):
    return sum(map(size_of, (*history.points, *history.saves, *history.sessions)))


def point(batches, value=1.0, ended="validation"):
    return Point(position=Position(batches // 10, 10, batches, batches), metrics={"val_loss": value}, ended=ended)


def saved(batches, score=None):
    return SavedPoint(
        position=Position(batches=batches),
        kind="best",
        name=f"{batches}.ckpt",
        score=score,
        created=0.0,
        blocked_seconds=0.1,
        write_seconds=0.2,
        size_bytes=3,
    )


def session(begins, ends, **fields):
    return SessionRecord(
        **{
            "attempt": f"a{begins}",
            "generation": 0,
            "started": 0.0,
            "begins": Position(batches=begins),
            "resumed_from": None,
            "command": ("train.py",),
            "commit": None,
            "is_dirty": None,
            "host": "here",
            "last_seen": 1.0,
            "ends": Position(batches=ends),
            **fields,
        }
    )


def run(epochs, best_at=None, mode="min"):
    """A run of so many epochs with a validation in each, whose values fall but for the best one."""
    best = -1.0 if mode == "min" else 2.0
    points = []
    for epoch in range(1, epochs + 1):
        points.append(point(10 * epoch, best if epoch == best_at else 1 / epoch))
        points.append(point(10 * epoch, ended="epoch"))
    saves = [saved(10 * epoch, best if epoch == best_at else 0.5) for epoch in range(1, epochs + 1)]
    return History(
        monitor="val_loss",
        mode=mode,
        points=tuple(points),
        saves=tuple(saves),
        sessions=(session(0, 10 * epochs),),
    )


def of_kind(history, ended):
    return [it for it in history.points if it.ended == ended]


lengths = st.integers(0, 300)


@settings(max_examples=60, deadline=None)
@given(epochs=lengths, best=st.integers(1, 300), mode=st.sampled_from(["min", "max"]), most=st.integers(3000, 40000))
def test_history_of_any_run_fits_and_keeps_ends_bests_and_order(epochs, best, mode, most):
    history = run(epochs, best, mode)
    found = bounded(history, size_of, most)
    assert total(found) <= most
    for before, after in ((history.points, found.points), (history.saves, found.saves)):
        places = [before.index(it) for it in after]
        assert places == sorted(set(places))
    for ended in ("validation", "epoch"):
        before, after = of_kind(history, ended), of_kind(found, ended)
        assert after[:1] + after[-1:] == before[:1] + before[-1:]
    assert found.saves_left_out == len(history.saves) - len(found.saves)
    assert found.points_left_out == len(history.points) - len(found.points)
    assert bounded(found, size_of, 0).points_left_out > found.points_left_out or len(found.points) < 3
    assert found.saves[:1] + found.saves[-1:] == history.saves[:1] + history.saves[-1:]
    if best <= epochs:
        assert history.points[2 * best - 2] in found.points
        assert history.saves[best - 1] in found.saves


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 500), max_size=80),
    data=st.data(),
    most=st.integers(0, 5000),
)
def test_parts_of_any_sizes_and_importance_fit_and_those_that_fit_stay(sizes, data, most):
    count = len(sizes)
    places = sorted(data.draw(st.lists(st.integers(0, 50), min_size=count, max_size=count)))
    importance = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    parts = [_Thinnable(place, size) for place, size in zip(places, sizes, strict=True)]
    kept = thinned(parts, importance, most)
    assert sum(sizes[at] for at in kept) <= most
    assert kept == sorted(set(kept))
    if sum(sizes) <= most:
        assert kept == list(range(count))
    gone = set(range(count)) - set(kept)
    for level in {importance[at] for at in gone}:
        assert not [at for at in kept if importance[at] < level]


def test_history_that_fits_is_the_same():
    history = run(20, 3)
    assert bounded(history, size_of, total(history)) == history


def test_points_that_stay_are_spread_over_the_whole_run():
    """Also if it is thinned again and again, as the run goes on."""
    history = run(1)
    for epoch in range(2, 3000):
        history = replace(history, points=(*history.points, point(10 * epoch, 1.0), point(10 * epoch, ended="epoch")))
        if epoch % 25 == 0 and total(history) > 20_000:
            history = bounded(history, size_of, 20_000)
    places = [it.position.batches for it in of_kind(history, "validation")]
    gaps = [after - before for before, after in itertools.pairwise(places)]
    assert places[0] == 10
    assert max(gaps) < 30_000 / 8
    assert len(places) > 20
    epochs = [it.position.batches for it in of_kind(history, "epoch")]
    assert 0.5 < len(epochs) / len(places) < 2


def test_history_that_is_not_thinned_outgrows_its_bound():
    """The twin of the bound."""
    assert total(run(300)) > 40_000


@pytest.mark.parametrize("mode", ["min", "max"])
def test_value_that_is_not_a_number_is_never_the_best(mode):
    history = run(300, 150, mode)
    points = tuple(
        replace(it, metrics={"val_loss": math.nan}) if it.position.batches < 100 else it for it in history.points
    )
    found = bounded(replace(history, points=points), size_of, 6000)
    assert history.points[298] in found.points


def test_last_point_of_each_session_stays_while_there_is_room():
    history = run(300)
    sessions = tuple(session(10 * at, 10 * at + 70) for at in range(0, 290, 40))
    found = bounded(replace(history, sessions=sessions), size_of, 30_000)
    for record in sessions:
        assert point(record.ends.batches, 1 / (record.ends.batches // 10)) in found.points


def test_thousand_sessions_keep_the_first_and_the_latest_ones():
    sessions = tuple(session(at, at + 1) for at in range(1000))
    found = bounded(replace(run(10), sessions=sessions), size_of, 10_000)
    assert total(found) <= 10_000
    assert found.sessions[0] == sessions[0]
    assert found.sessions[1:] == sessions[1001 - len(found.sessions) :]
    assert len(found.sessions) > 5


@pytest.mark.parametrize("count", [1, 2])
def test_only_the_first_and_the_last_session_stay_where_they_alone_fit(count):
    sessions = tuple(session(at, at + 1, exactness="x" * 400) for at in range(20))[:count] or ()
    found = bounded(replace(run(0), sessions=sessions), size_of, 100)
    assert found.sessions == sessions


def test_point_with_many_values_keeps_the_monitored_one_and_the_first_ones():
    many = replace(point(1), metrics={f"metric_{number}": 0.1 for number in range(500)} | {"val_loss": 0.2})
    found = with_few_metrics(many, "val_loss")
    assert size_of(found) < 2500
    assert {"val_loss", "metric_0", "metric_9"} <= found.metrics.keys()
    assert with_few_metrics(point(1), None) == point(1)


def test_session_with_long_texts_is_shortened_and_says_so():
    long = session(0, 1, command=("x" * 999,) * 99, changes=("y" * 999,) * 99, exactness="z" * 9999, ended="e" * 999)
    found = shortened(long)
    assert size_of(found) < 14_500
    assert found.command[-1] == found.changes[-1] == "..."
    assert all(text.endswith("...") for text in (found.command[0], found.changes[0], found.exactness))
    assert shortened(session(0, 1)) == session(0, 1)
