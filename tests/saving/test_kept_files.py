"""The files that a run keeps, as a value: each save that succeeds gives the next."""

from __future__ import annotations

from typing import Any

import pytest

from checkpointable.catalog.info import CheckpointInfo
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.policy.reasons import Reason
from checkpointable.policy.retention import SavedFile
from checkpointable.saving.kept_files import KeptFiles


def at(batch: int, epoch: int = 0) -> Position:
    return Position(epoch, batch, batch, 100 * epoch + batch)


def file(path: str, batch: int, *reasons: str, score: float | None = None, epoch: int = 0) -> SavedFile:
    given = frozenset(map(Reason, reasons)) or frozenset({Reason.INTERVAL})
    return SavedFile(path=path, position=at(batch, epoch), reasons=given, score=score)


def info(path: str, batch: int, **changes: Any) -> CheckpointInfo:
    """A file that a run finds where it resumes."""
    facts = {
        "path": path, "kind": "interval", "reasons": ("interval",), "epoch": 0, "batch": batch, "step": batch,
        "batches": batch, "metrics": {}, "monitor": None, "mode": None, "score": None, "created": 0.0, "size": 1,
        "run_id": "r", "resumed_from": None, "exactness": None, "weights_only": False,
    }  # fmt: skip
    return CheckpointInfo(**{**facts, **changes})


def best(path: str, batch: int, score: float, **changes: Any) -> CheckpointInfo:
    judged = {"kind": "best", "reasons": ("best",), "monitor": "val_loss", "mode": "min", "score": score}
    return info(path, batch, **{**judged, **changes})


def keep(*files: SavedFile, **options: Any) -> KeptFiles:
    """After these files were saved."""
    kept = KeptFiles(retention=Options(**options).retention)
    for it in files:
        kept = kept.add(it)
    return kept


def test_no_files_keep_nothing():
    now = keep()
    assert (now.kept, now.outdated, now.last_path, now.best_path, now.last_position) == (set(), set(), "", "", None)
    assert not now.path_at(at(0), {Reason.INTERVAL}, weights_only=False)


def test_add_keeps_the_newest_and_the_best():
    now = keep(file("a", 1, score=0.5), file("b", 2), file("c", 3), save_last_k=1, save_top_k=1)
    assert now.kept == {"a", "c"}
    assert now.outdated == {"b"}
    assert (now.last_path, now.best_path, now.last_position) == ("c", "a", at(3))


def test_add_of_a_file_that_is_only_best_is_not_one_of_the_newest():
    now = keep(file("a", 1), file("b", 2, "best", score=0.5), file("c", 3, "best", score=0.4))
    assert now.kept == {"a", "c"}


def test_add_with_a_score_for_another_reason_is_both():
    now = keep(file("a", 1, "best", "epoch", score=0.5), file("b", 2, "best", score=0.4), save_last_k=1, save_top_k=1)
    assert now.kept == {"a", "b"}


def test_add_under_the_name_of_an_older_file_keeps_one():
    now = keep(file("a", 1), file("a", 2), save_last_k=3, save_top_k=0)
    assert now.kept == {"a"}
    assert now.last_position == at(2)


def test_add_leaves_the_files_before_as_they_were():
    before = keep(file("a", 1))
    before.add(file("b", 2, score=0.1))
    assert before.kept == {"a"}


def test_newest_of_all_is_kept_though_nothing_else_keeps_it():
    now = keep(file("a", 1), file("b", 2, "exception"), save_last_k=0, save_top_k=0)
    assert now.kept == {"b"}
    assert now.outdated == {"a"}


def test_file_kept_for_ever_is_never_outdated_and_needs_no_room_in_the_list():
    now = keep(file("a", 4, "epoch", "kept_epoch"), file("b", 5), file("c", 6), save_last_k=1, save_top_k=0)
    assert now.outdated == {"b"}
    assert [it.path for it in now.without_outdated().files] == ["c"]


def test_newest_file_that_is_kept_for_ever_stays_in_the_list():
    now = keep(file("a", 4, "epoch", "kept_epoch"), save_last_k=0, save_top_k=0).without_outdated()
    assert now.last_path == "a"


def test_files_of_a_run_that_keeps_all_need_room_in_the_list_only_while_they_are_best_or_last():
    now = keep(save_last_k=-1, save_top_k=1)
    for batch, score in enumerate((0.5, None, 0.4, None, None)):
        now = now.add(file(f"{batch}", batch, "interval", *["best"] * (score is not None), score=score))
        assert now.outdated == set()
        now = now.without_outdated()
    assert [it.path for it in now.files] == ["2", "4"]
    assert (now.best_path, now.last_path) == ("2", "4")


def test_file_that_is_best_alone_is_outdated_also_in_a_run_that_keeps_all_others():
    now = keep(file("a", 1), file("b", 2, "best", score=0.5), save_last_k=-1, save_top_k=1).without_outdated()
    assert now.add(file("c", 3, "best", score=0.4)).outdated == {"b"}


def test_without_forgets_a_file_everywhere():
    now = keep(file("a", 1, score=0.5), file("b", 2), save_last_k=2, save_top_k=1)
    less = now.without(["b", "other"])
    assert less.kept == {"a"}
    assert less.last_path == "a"
    assert now.without(["a"]).scores == {}
    assert now.without(["a"]).last_path == "b"


def test_without_the_newest_file_its_position_is_not_saved():
    now = keep(file("a", 1), file("b", 2), save_last_k=2)
    assert now.path_at(at(2), {Reason.LAST}, weights_only=False)
    assert now.without(["a"]).path_at(at(2), {Reason.LAST}, weights_only=False)
    assert not now.without(["b"]).path_at(at(2), {Reason.LAST}, weights_only=False)


@pytest.mark.parametrize(
    ("options", "new", "replaced"),
    [
        ({"save_last_k": 1, "save_top_k": 1}, file("d", 4), {"b", "c"}),
        ({"save_last_k": 2, "save_top_k": 1}, file("d", 4), {"b"}),
        ({"save_last_k": -1, "save_top_k": 1}, file("d", 4), set()),
        ({"save_last_k": 1, "save_top_k": 1}, file("d", 4, "best", score=0.1), {"a", "b"}),
        ({"save_last_k": 1, "save_top_k": 1}, file("d", 4, score=0.1), {"a", "b", "c"}),
        ({"save_last_k": 1, "save_top_k": 1}, file("d", 4, score=0.9), {"b", "c"}),
    ],
)
def test_replaced_by_the_next_save_is_what_it_makes_outdated(options, new, replaced):
    now = keep(file("a", 1, score=0.5), file("b", 2), file("c", 3), **options)
    assert now.replaced_by(new) == replaced
    assert now.add(new).outdated == replaced


def test_admits_counts_the_score_of_a_save_in_progress():
    now = keep(file("a", 1, score=0.5), save_top_k=1)
    assert now.admits(0.4)
    assert not now.admits(0.4, in_progress=0.3)
    assert not now.admits(0.6)


def test_has_a_position_only_if_it_was_saved_for_that_purpose():
    now = keep(file("a", 5, "interval"))
    assert now.path_at(at(5), {Reason.INTERVAL}, weights_only=False)
    assert now.path_at(at(5), {Reason.LAST}, weights_only=False)
    assert now.path_at(at(5), {Reason.EXCEPTION, Reason.TIME}, weights_only=False)
    assert not now.path_at(at(6), {Reason.INTERVAL}, weights_only=False)
    assert not now.path_at(at(5), {Reason.BEST}, weights_only=False)
    assert not now.path_at(at(5), {Reason.EPOCH}, weights_only=False)
    assert keep(file("a", 5, "best", score=0.1)).path_at(at(5), {Reason.BEST}, weights_only=False)
    assert keep(file("a", 5, "epoch")).path_at(at(5), {Reason.EPOCH}, weights_only=False)
    assert not keep(file("a", 5, "epoch")).path_at(at(5), {Reason.EPOCH, Reason.KEPT_EPOCH}, weights_only=False)


def test_found_takes_over_what_the_run_had_at_that_position():
    infos = [info("a", 1), best("b", 2, 0.5), info("c", 3), best("d", 4, 0.2), info("later", 9)]
    now = KeptFiles.found(Options(save_last_k=1, save_top_k=1), infos, at(4))
    assert now.kept == {"c", "d"}
    assert now.scores == {"d": 0.2}
    assert (now.last_path, now.last_position) == ("d", at(4))
    assert now.outdated == {"a", "b"}


def test_found_where_the_position_itself_was_not_saved_saves_it():
    now = KeptFiles.found(Options(), [info("a", 1)], at(2))
    assert not now.path_at(at(2), {Reason.INTERVAL}, weights_only=False)
    assert now.last_path == "a"


@pytest.mark.parametrize(
    "other", [{"monitor": "val_acc", "mode": "max"}, {"mode": "max"}, {"kind": "manual", "reasons": ("manual",)}]
)
def test_found_of_another_monitor_or_by_hand_is_not_one_of_the_best(other):
    now = KeptFiles.found(Options(save_top_k=1), [best("a", 1, 0.5, **other)], at(3))
    assert now.scores == {}


def test_found_by_hand_or_of_another_monitor_is_never_outdated():
    infos = [
        info("manual", 1, kind="manual", reasons=("manual",)),
        best("other", 2, 0.5, monitor="val_acc", mode="max"),
        info("a", 3),
    ]
    now = KeptFiles.found(Options(save_last_k=1), infos, at(3)).add(file("b", 4))
    assert now.outdated == {"a"}


def test_found_of_the_same_monitor_in_the_other_mode_is_outdated():
    infos = [best("other", 1, 0.5, mode="max"), info("a", 2)]
    now = KeptFiles.found(Options(save_last_k=1), infos, at(2)).add(file("b", 3))
    assert now.outdated == {"other", "a"}


def test_found_kept_for_ever_is_never_outdated_though_the_argument_is_gone():
    infos = [info("a", 4, kind="epoch", reasons=("epoch", "kept_epoch")), info("b", 5)]
    now = KeptFiles.found(Options(save_last_k=1), infos, at(5)).add(file("c", 6))
    assert now.outdated == {"b"}


def test_found_with_a_reason_of_a_later_version_is_found():
    now = KeptFiles.found(Options(), [info("a", 1, reasons=("interval", "of a later version"))], at(1))
    assert now.last_path == "a"


def test_found_of_nothing_is_empty():
    assert KeptFiles.found(Options(), [], at(3)).files == ()
