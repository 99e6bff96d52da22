"""What a run keeps, as a value: each save that succeeds gives the next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from checkpointable.catalog.info import CheckpointInfo
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.saving.kept_files import Order, Shelf


def at(batch: int, epoch: int = 0) -> Position:
    return Position(epoch, batch, batch, 100 * epoch + batch)


def order(batch: int, *reasons: str, score: float | None = None, epoch: int = 0) -> Order:
    return Order(reasons=set(reasons) or {"interval"}, position=at(batch, epoch), metrics={}, score=score)


def info(path: str, batch: int, **changes: Any) -> CheckpointInfo:
    """A file that a run finds where it goes on."""
    facts = {
        "path": path, "kind": "interval", "reasons": ("interval",), "epoch": 0, "batch": batch, "step": batch,
        "batches": batch, "metrics": {}, "monitor": None, "mode": None, "score": None, "created": 0.0, "size": 1,
        "run_id": "r", "resumed_from": None, "exactness": None, "weights_only": False,
    }  # fmt: skip
    return CheckpointInfo(**{**facts, **changes})


def best(path: str, batch: int, score: float, **changes: Any) -> CheckpointInfo:
    judged = {"kind": "best", "reasons": ("best",), "monitor": "val_loss", "mode": "min", "score": score}
    return info(path, batch, **{**judged, **changes})


def shelf(saves: Iterable[tuple[str, Order]], **options: Any) -> Shelf:
    """After these saves, each with its outdated files deleted, as the job does it."""
    now = Shelf.empty(Options(**options))
    for path, of in saves:
        now = now.add(path, of)
    return now


def test_empty_shelf_keeps_nothing_and_has_nothing():
    now = Shelf.empty(Options())
    assert now.kept == set()
    assert now.outdated() == set()
    assert not now.has(at(0), {"interval"})


def test_add_keeps_the_newest_and_the_best():
    now = shelf([("a", order(1, score=0.5)), ("b", order(2)), ("c", order(3))], save_last_k=1, save_top_k=1)
    assert now.kept == {"a", "c"}
    assert now.outdated() == {"b"}
    assert now.last_path == "c"
    assert list(now.best.scores) == ["a"]


def test_add_of_a_file_that_is_only_best_is_not_one_of_the_newest():
    now = shelf([("a", order(1)), ("b", order(2, "best", score=0.5))], save_last_k=1, save_top_k=1)
    assert now.newest.names == ("a",)
    assert now.kept == {"a", "b"}


def test_add_with_a_score_for_another_reason_is_both():
    now = shelf([("a", order(1, "best", "epoch", score=0.5))], save_last_k=1, save_top_k=1)
    assert now.newest.names == ("a",)
    assert now.best.scores == {"a": 0.5}


def test_add_under_the_name_of_an_older_file_keeps_one():
    now = shelf([("a", order(1)), ("a", order(2))], save_last_k=3, save_top_k=0)
    assert now.kept == {"a"}
    assert now.newest.names == ("a",)
    assert now.saved == at(2)


def test_add_leaves_the_shelf_before_as_it_was():
    before = shelf([("a", order(1))])
    before.add("b", order(2, score=0.1))
    assert before.kept == {"a"}


def test_newest_of_all_is_kept_though_nothing_else_keeps_it():
    now = shelf([("a", order(1)), ("b", order(2, "exception"))], save_last_k=0, save_top_k=0)
    assert now.kept == {"b"}
    assert now.outdated() == {"a"}


def test_without_forgets_a_file_everywhere():
    now = shelf([("a", order(1, score=0.5)), ("b", order(2))], save_last_k=2, save_top_k=1)
    less = now.without(["b", "other"])
    assert less.kept == {"a"}
    assert less.last_path == "a"
    assert now.without(["a"]).best.scores == {}
    assert now.without(["a"]).last_path == "b"
    assert "b" not in less.written


def test_without_the_newest_file_has_its_moment_no_more():
    now = shelf([("a", order(1)), ("b", order(2))], save_last_k=2)
    assert now.has(at(2), {"last"})
    assert now.without(["a"]).has(at(2), {"last"})
    assert not now.without(["b"]).has(at(2), {"last"})


@pytest.mark.parametrize(
    ("options", "next_order", "replaceable"),
    [
        ({"save_last_k": 1, "save_top_k": 1}, order(4), {"b", "c"}),
        ({"save_last_k": 2, "save_top_k": 1}, order(4), {"b"}),
        ({"save_last_k": -1, "save_top_k": 1}, order(4), set()),
        ({"save_last_k": 1, "save_top_k": 1}, order(4, "best", score=0.1), {"a", "b"}),
        ({"save_last_k": 1, "save_top_k": 1}, order(4, score=0.1), {"a", "b", "c"}),
        ({"save_last_k": 1, "save_top_k": 1}, order(4, score=0.9), {"b", "c"}),
    ],
)
def test_replaceable_is_what_the_next_save_makes_outdated(options, next_order, replaceable):
    now = shelf([("a", order(1, score=0.5)), ("b", order(2)), ("c", order(3))], **options)
    assert now.replaceable(next_order) == replaceable
    after = now.add("d", next_order)
    assert after.outdated() == replaceable


def test_has_this_moment_only_where_it_was_saved_as_that():
    now = shelf([("a", order(5, "interval"))])
    assert now.has(at(5), {"interval"})
    assert now.has(at(5), {"last"})
    assert now.has(at(5), {"exception", "time"})
    assert not now.has(at(6), {"interval"})
    assert not now.has(at(5), {"best"})
    assert not now.has(at(5), {"epoch"})
    assert shelf([("a", order(5, "best", score=0.1))]).has(at(5), {"best"})
    assert shelf([("a", order(5, "epoch"))]).has(at(5), {"epoch"})


def test_found_takes_up_what_the_run_had_at_that_position():
    files = [info("a", 1), best("b", 2, 0.5), info("c", 3), best("d", 4, 0.2), info("later", 9)]
    now = Shelf.found(Options(save_last_k=1, save_top_k=1), files, at(4))
    assert now.kept == {"c", "d"}
    assert now.best.scores == {"d": 0.2}
    assert now.last_path == "d"
    assert now.saved == at(4)
    assert "later" not in now.written
    assert now.outdated() == {"a", "b"}


def test_found_where_the_position_itself_was_not_saved_saves_it():
    now = Shelf.found(Options(), [info("a", 1)], at(2))
    assert now.saved is None
    assert now.last_path == "a"


@pytest.mark.parametrize(
    "other", [{"monitor": "val_acc", "mode": "max"}, {"mode": "max"}, {"kind": "manual", "reasons": ("manual",)}]
)
def test_found_of_another_monitor_or_by_hand_is_not_one_of_the_best(other):
    now = Shelf.found(Options(save_top_k=1), [best("a", 1, 0.5, **other)], at(3))
    assert now.best.scores == {}


def test_found_by_hand_or_of_another_monitor_is_never_outdated():
    files = [info("manual", 1, kind="manual"), best("other", 2, 0.5, monitor="val_acc", mode="max"), info("a", 3)]
    now = Shelf.found(Options(save_last_k=1), files, at(3)).add("b", order(4))
    assert now.outdated() == {"a"}


def test_found_of_nothing_is_empty():
    now = Shelf.found(Options(), [], at(3))
    assert now.kept == set()
    assert now.saved is None
