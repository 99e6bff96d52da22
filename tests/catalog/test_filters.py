"""Some of the checkpoints: chosen by their fields, by their run, by a slice."""

from __future__ import annotations

import os
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
import torch
from catalog.conftest import Make, fill_with_text, flip_a_bit

from checkpointable import CheckpointableWarning, Checkpoints, PolicyError, UnknownArgumentError, latest
from checkpointable.catalog import pruning
from checkpointable.catalog.scan import Found


@pytest.fixture
def found(make: Make, tmp_path: Path) -> Checkpoints:
    """Five of run a, one of run b, one that cannot be read."""
    for epoch in range(5):
        kind, given = ("best", {"score": 0.5 - epoch / 10}) if epoch % 2 else ("interval", {})
        make(
            f"a{epoch}.ckpt",
            run_id="a",
            epoch=epoch,
            batches=epoch,
            step=epoch,
            created=10.0 + epoch,
            kind=kind,
            **given,
        )
    make("b.ckpt", run_id="b", created=20.0, weights_only=True, metrics={"acc": 0.5}, reasons=["epoch", "kept_epoch"])
    fill_with_text(make("c.ckpt"))
    return Checkpoints(tmp_path)


def names(found: Checkpoints) -> list[str]:
    return [os.path.basename(info.path).removesuffix(".ckpt") for info in found]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"kind": "best"}, ["a1", "a3"]),
        ({"kind": "best", "epoch": slice(3, None)}, ["a3"]),
        ({"epoch": slice(1, 3)}, ["a1", "a2"]),
        ({"epoch": slice(None, 2), "run_id": "a"}, ["a0", "a1"]),
        ({"epoch": range(3, 5)}, ["a3", "a4"]),
        ({"epoch": [0, 4], "run_id": {"a"}}, ["a0", "a4"]),
        ({"epoch": lambda epoch: epoch % 2 == 0, "run_id": "a"}, ["a0", "a2", "a4"]),
        ({"step": 0, "batch": 0}, ["a0", "b"]),
        ({"weights_only": True}, ["b"]),
        ({"monitor": "val_loss"}, ["a1", "a3"]),
        ({"monitor": None}, ["a0", "a2", "a4", "b"]),
        ({"score": slice(None, 0.3)}, ["a3"]),
        ({"created": slice(datetime.fromtimestamp(13.0), None)}, ["a3", "a4", "b"]),
        ({"created": datetime.fromtimestamp(12.0)}, ["a2"]),
        ({"created": [datetime.fromtimestamp(12.0), 13.0]}, ["a2", "a3"]),
        ({"created": date.fromtimestamp(12.0)}, ["a0", "a1", "a2", "a3", "a4", "b"]),
        ({"created": [date.fromtimestamp(12.0)], "run_id": "b"}, ["b"]),
        ({"created": date.fromtimestamp(12.0) + timedelta(days=1)}, []),
        ({"created": slice(date.fromtimestamp(12.0) + timedelta(days=1), None)}, []),
        ({"score": torch.tensor(0.4, dtype=torch.float64)}, ["a1"]),
        ({"epoch": torch.tensor([0, 4]), "run_id": "a"}, ["a0", "a4"]),
        ({"reasons": "kept_epoch"}, ["b"]),
        ({"metrics": lambda metrics: metrics.get("acc", 0) > 0.4}, ["b"]),
        ({"metrics": {"acc": 0.5}}, ["b"]),
        ({"generation": 0, "attempt": "", "kind": "interval"}, ["a0", "a2", "a4", "b"]),
        ({}, ["a0", "a1", "a2", "a3", "a4", "b"]),
        ({"kind": "bset"}, []),
    ],
)
def test_where_gives_those_that_fulfil_all_conditions(found, conditions, expected):
    some = found.where(**conditions)
    assert isinstance(some, Checkpoints)
    assert names(some) == expected


def test_where_takes_a_generator_and_shows_what_it_gave(found):
    assert names(found.where(epoch=(epoch for epoch in (1, 3)))) == ["a1", "a3"]
    assert "epoch in [7]" in repr(found.where(epoch=iter([7])))


def test_where_takes_a_path_that_is_no_string(found, tmp_path):
    assert names(found.where(path=tmp_path / "b.ckpt")) == ["b"]


def test_where_of_an_unknown_field_raises_and_names_what_there_is(found):
    with pytest.raises(
        UnknownArgumentError, match=r"by epochs, val_loss\. Choose by attempt, .*epoch, .*with a function"
    ):
        found.where(epochs=3, val_loss=0.5)


@pytest.mark.parametrize("condition", [slice("3", None), slice(0, 4, 2)])
def test_where_with_a_slice_that_fits_no_value_raises_and_says_what_to_pass(found, condition):
    with pytest.raises(PolicyError, match=r"epoch is 0 in .*a0\.ckpt\. Pass a value of that type.*or a function"):
        found.where(epoch=condition)


def test_where_raises_what_its_function_raises(found):
    with pytest.raises(TypeError, match="'>' not supported"):
        found.where(score=lambda score: score > 0.5)


def test_where_that_finds_nothing_says_what_was_asked_and_of_how_many(found, tmp_path):
    assert repr(found.where(kind="bset").where(epoch=slice(3, 5))) == (
        f"none of the 6 checkpoints at {tmp_path}: kind='bset', epoch from 3 before 5"
    )
    assert "kind in (&#x27;bset&#x27;,)" in found.where(kind=("bset",))._repr_html_()
    assert "not readable" not in repr(found.where(kind="best"))


def test_runs_are_listed_by_id_newest_last(found):
    runs = found.runs()
    assert {run_id: names(some) for run_id, some in runs.items()} == {"a": ["a0", "a1", "a2", "a3", "a4"], "b": ["b"]}
    assert list(runs) == ["a", "b"]
    assert runs["a"].latest().path == runs["a"][-1].path
    assert runs["a"].best().path == runs["a"][3].path


def test_slice_is_some_of_them_in_its_order(found):
    assert names(found[1:3]) == ["a1", "a2"]
    assert names(found[::-2]) == ["b", "a3", "a1"]
    assert len(found[10:]) == 0


def test_latest_of_a_slice_that_is_turned_round_is_the_newest(found):
    assert found[3::-1].latest() == found[3]
    assert found[3::-1].best() == found[3]


def test_latest_and_best_of_some_are_chosen_among_them(found):
    assert names(found.where(epoch=slice(None, 3))) == ["a0", "a1", "a2", "b"]
    assert found.where(epoch=slice(None, 3)).latest() == found[2]
    assert found.where(epoch=slice(None, 3)).best() == found[1]
    assert found.where(kind="bset").latest() is found.where(kind="bset").best() is None


def test_latest_of_some_warns_of_a_damaged_one_among_them_alone(found):
    flip_a_bit(found[2].path)
    flip_a_bit(found[4].path)
    with pytest.warns(CheckpointableWarning, match=r"skipped .*a2\.ckpt") as caught:
        assert found.where(epoch=slice(None, 3)).latest() == found[1]
    assert len(caught) == 1


def test_verify_of_some_reads_those_alone(found):
    assert list(found[:2].verify()) == [found[0].path, found[1].path]
    assert len(found.verify()) == 7


def test_prune_of_some_deletes_among_them_alone(found, tmp_path):
    some = found.where(kind="interval", run_id="a")
    outdated = some.prune(dry_run=False)
    assert [os.path.basename(path) for path in outdated] == ["a0.ckpt", "a2.ckpt"]
    assert sorted(os.listdir(tmp_path)) == ["a1.ckpt", "a3.ckpt", "a4.ckpt", "b.ckpt", "c.ckpt"]
    assert names(some) == ["a4"]
    assert names(found) == ["a1", "a3", "a4", "b"]


def test_prune_of_some_keeps_what_latest_and_best_of_the_path_return(found, tmp_path):
    some = found.where(epoch=slice(2, None), run_id="a")
    assert some.prune(keep_last=0, keep_best=0) == [found[2].path]
    os.remove(tmp_path / "c.ckpt")
    assert latest(tmp_path) == found[4].path


def test_prune_of_some_that_looks_at_those_alone_would_delete_the_best_of_the_path(make, tmp_path):
    """The twin: the newest score among them is of another monitor, so they have another best."""
    best = make("a.ckpt", batch=1, score=0.5)
    make("b.ckpt", batch=2, score=0.5, monitor="acc", mode="max")
    make("c.ckpt", batch=3, score=0.7)
    found = Checkpoints(tmp_path)
    assert found.best("val_loss").path == best
    assert found[:2].prune(keep_last=0, keep_best=0) == [found[1].path]
    alone = pruning.outdated(found[:2], Found(infos=list(found[:2])), keep_last=0, keep_best=0)
    assert [info.path for info in alone] == [best]


def test_listed_checkpoints_can_be_put_into_a_set(found):
    assert {*found, *found[:2]} == set(found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("conditions", [{"created": date.max}, {"epoch": torch.zeros((), device="meta")}], ids=str)
def test_where_names_a_value_that_cannot_be_used(found, conditions):
    with pytest.raises(PolicyError, match=f"cannot choose checkpoints by {next(iter(conditions))}=.* another value"):
        found.where(**conditions)
