"""What goes where there is no room for the next checkpoint: never the newest file that a run can be resumed from."""

from __future__ import annotations

import errno
import os
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from catalog.conftest import metadata
from saving.test_save_task import RUN, Refusing, Saving, pointed, there

from checkpointable import latest
from checkpointable.catalog.info import read_info
from checkpointable.policy.names import HISTORY_KEY, KEY
from checkpointable.saving import room, weights_alone
from checkpointable.storage.format import verify
from checkpointable.storage.format.checkpoint import history_text
from checkpointable.storage.staging.snapshot import Snapshot


def whole(batch: int, *, values: int = 50_000, extra: Any = None) -> Snapshot:
    """A checkpoint of which the optimizer is two thirds."""
    described = metadata(run_id=RUN, kind="interval", batch=batch, batches=batch)
    weights = torch.full((values,), float(batch))
    state = {"exp_avg": weights.clone(), "exp_avg_sq": weights.clone()}
    checkpoint = {"state_dict": {"weight": weights}, "optimizer_states": [state], "loops": {}, "callbacks": {}}
    hyper_parameters = {} if extra is None else {"extra": extra}
    ours = {"ranks": [1], "gradients": {}, "sums": None, "metadata": described}
    return Snapshot({**checkpoint, "hyper_parameters": hyper_parameters, KEY: ours}, described)


SIZE = whole(1).size
WEIGHTS = SIZE / 3
OLD, NEWEST, BEST = "epoch_0_batch_1.ckpt", "epoch_0_batch_2.ckpt", "best_val_loss_epoch_0.ckpt"


class Watched(Refusing):
    """A directory that notes which file ``latest`` finds whenever something is about to change there."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.found: list[str | None] = []

    def _do(self, what: str, path: str) -> None:
        with warnings.catch_warnings(action="ignore"):  # of damaged files
            self.found.append(latest(self.directory))
        super()._do(what, path)


@pytest.fixture
def run(tmp_path):
    """A run with a best file, and a newest one that the next save will replace."""
    run = Saving(Watched(tmp_path))
    run.content = whole
    run.save(1, "best", score=0.5)
    run.save(2)
    assert there(run.store) == [BEST, NEWEST]
    run.store.found.clear()
    run.store.events.clear()
    return run


def with_room_for(run: Saving, files: float) -> None:
    run.store.room = int(files * SIZE)


def newest_before(run: Saving) -> set[str]:
    """The names of the files that ``latest`` found before the last file was written."""
    written = next(
        number for number, event in enumerate(run.store.events) if event == ("write", "epoch_0_batch_3.ckpt")
    )
    return {os.path.basename(path or "none") for path in run.store.found[: written + 1]}


def test_best_is_reduced_to_its_weights_first(run):
    with_room_for(run, 2.5)
    result = run.save(3)
    assert result.problem is None
    assert there(run.store) == [BEST, "epoch_0_batch_3.ckpt"]
    assert newest_before(run) == {NEWEST}
    [message] = result.messages
    assert f"{BEST} was reduced to its weights" in message
    assert f"Free at least {SIZE - SIZE // 2:,} bytes in {run.store.directory}" in message


def test_best_that_was_reduced_holds_its_weights_and_says_so(run):
    with_room_for(run, 2.5)
    run.save(3)
    path = run.store.path(BEST)
    loaded = torch.load(path, weights_only=True)
    assert loaded.keys() == {"state_dict", "hyper_parameters", KEY}
    assert torch.equal(loaded["state_dict"]["weight"], torch.full((50_000,), 1.0))
    assert loaded[KEY]["ranks"] == ()
    assert run.store.problem(path) is None
    info = read_info(path)
    assert info.weights_only
    assert (info.exactness, info.batches, info.run_id) == (None, 1, RUN)
    assert info.size == pytest.approx(WEIGHTS, rel=0.05)
    assert run.kept.best_path == path
    assert run.kept.of_weights == {path}
    assert pointed(run.store)["best.ckpt"] == BEST


def test_best_that_was_reduced_is_not_reduced_again(run):
    with_room_for(run, 2.5)
    run.save(3)
    assert run.save(4).messages == []
    assert there(run.store) == [BEST, "epoch_0_batch_4.ckpt"]


def test_best_is_given_up_second(run):
    with_room_for(run, 2.2)
    result = run.save(3)
    assert result.problem is None
    assert there(run.store) == ["epoch_0_batch_3.ckpt"]
    assert newest_before(run) == {NEWEST}
    assert pointed(run.store) == {"last.ckpt": "epoch_0_batch_3.ckpt"}
    assert run.kept.best_path == ""
    cannot, deleted = result.messages
    assert f"{BEST} cannot be reduced to its weights: its weights take" in cannot
    missing = SIZE - (int(2.2 * SIZE) - 2 * SIZE)
    assert f"{BEST} was deleted" in deleted
    assert f"Free at least {missing:,} bytes in {run.store.directory} to keep both." in deleted


def test_newest_would_go_if_the_best_could_stay_instead(run, monkeypatch):
    """The twin."""
    monkeypatch.setattr(room, "_newest_intact", lambda store, kept: kept.best_path)
    with_room_for(run, 2.5)
    run.save(3)
    assert newest_before(run) != {NEWEST}


def test_only_file_stays_where_there_is_room_for_one(tmp_path):
    run = Saving(Watched(tmp_path))
    run.content = whole
    run.save(1)
    with_room_for(run, 1.9)
    result = run.save(2)
    assert "no room in" in result.problem
    assert "deleted" not in result.problem
    assert there(run.store) == [OLD]


def test_nothing_is_touched_if_all_that_may_go_is_not_enough(run):
    with_room_for(run, 1.9)
    before = run.kept
    result = run.save(3)
    assert f"a checkpoint takes {SIZE:,} bytes" in result.problem
    assert there(run.store) == [BEST, NEWEST]
    assert result.kept == before
    assert read_info(run.store.path(BEST)).weights_only is False


def test_older_ones_go_before_the_best(tmp_path):
    run = Saving(Watched(tmp_path), save_last_k=2)
    run.content = whole
    run.save(1)
    run.save(2)
    run.save(3, "best", score=0.5)
    with_room_for(run, 3.5)
    result = run.save(4)
    assert result.messages == []
    assert there(run.store) == [BEST, NEWEST, "epoch_0_batch_4.ckpt"]
    assert ("remove", OLD) in run.store.events
    assert run.store.events.index(("remove", OLD)) < run.store.events.index(("write", "epoch_0_batch_4.ckpt"))


def test_worst_of_the_best_goes_first(tmp_path):
    run = Saving(Watched(tmp_path), save_top_k=3)
    run.content = whole
    paths = {score: run.save(number, "best", score=score).path for number, score in enumerate((0.3, 0.1, 0.2), 1)}
    run.save(4)
    with_room_for(run, 4.4)
    run.save(5)
    assert run.kept.of_weights == {paths[0.3]}
    with_room_for(run, 3.3)
    run.save(6)
    assert set(run.kept.scores) >= {paths[0.1]}
    assert paths[0.3] not in run.kept.scores


def test_newest_that_is_damaged_may_go(run):
    data = bytearray(Path(run.store.path(NEWEST)).read_bytes())
    data[len(data) // 2] ^= 1
    Path(run.store.path(NEWEST)).write_bytes(data)
    with_room_for(run, 2.5)
    result = run.save(3)
    assert result.problem is None
    assert there(run.store) == [BEST, "epoch_0_batch_3.ckpt"]
    assert not read_info(run.store.path(BEST)).weights_only


def test_file_resumed_from_is_neither_reduced_nor_deleted(run):
    run.resumed_from = run.kept.best_path
    with_room_for(run, 2.5)
    result = run.save(3)
    assert "no room in" in result.problem
    assert there(run.store) == [BEST, NEWEST]
    assert not read_info(run.resumed_from).weights_only


def test_best_of_an_epoch_that_is_kept_for_ever_is_neither_reduced_nor_deleted(tmp_path):
    run = Saving(Watched(tmp_path), keep_every_n_epochs=1)
    run.content = whole
    best = run.save(1, "best", "kept_epoch", score=0.5).path
    run.save(2)
    with_room_for(run, 2.5)
    assert "no room in" in run.save(3).problem
    assert not read_info(best).weights_only


def test_best_that_cannot_be_reduced_is_said_and_given_up(run, monkeypatch):
    def refuse(*_: Any) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(weights_alone, "reduce_to_weights", refuse)
    with_room_for(run, 2.5)
    result = run.save(3)
    assert "cannot be reduced to its weights: [Errno 5] Input/output error" in result.messages[0]
    assert there(run.store) == ["epoch_0_batch_3.ckpt"]


def test_links_lead_to_files_that_are_there_if_the_save_fails_after_room_was_made(run):
    with_room_for(run, 2.2)
    newest = run.kept.last_path
    run.store.refused.add("write")
    result = run.save(3)
    assert "Input/output error" in result.problem
    assert there(run.store) == [NEWEST]
    assert result.kept.kept == {newest}
    assert pointed(run.store) == {"last.ckpt": NEWEST}


def test_file_that_cannot_be_deleted_stays_in_the_list(run):
    with_room_for(run, 2.2)
    before = run.kept
    run.store.refused.add("remove")
    result = run.save(3)
    assert "no room in" in result.problem
    assert "deleted to make room" not in result.problem
    assert result.kept == before


def test_what_went_is_told_if_deleting_frees_less_than_it_should(run):
    best = run.kept.best_path
    run.store.free_bytes = lambda: SIZE // 5
    result = run.save(3)
    assert result.problem.endswith(f" are missing; deleted to make room: {best}")


@pytest.mark.parametrize("why", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_disk_that_is_fuller_than_it_says_makes_room_too(run, why, monkeypatch):
    """As with a quota, which ``statvfs`` does not know."""
    tries: dict[str, int] = defaultdict(int)
    write = run.store.write

    def refuse_once(content: Any, path: str, *, overwrite: bool) -> None:
        tries[path] += 1
        if path.endswith("batch_3.ckpt") and tries[path] == 1:
            raise OSError(why, os.strerror(why))
        write(content, path, overwrite=overwrite)

    monkeypatch.setattr(run.store, "write", refuse_once)
    result = run.save(3)
    assert result.problem is None
    assert there(run.store) == ["epoch_0_batch_3.ckpt"]


class Odd:
    """Something that torch does not load with ``weights_only=True``."""


def test_values_that_torch_does_not_load_become_placeholders_in_a_reduced_file_and_are_named(tmp_path):
    run = Saving(Watched(tmp_path))
    run.content = lambda batch: whole(batch, extra=Odd())
    run.save(1, "best", score=0.5)
    run.save(2)
    with_room_for(run, 2.5)
    [message] = run.save(3).messages
    assert f"Values made by {Odd.__module__}.Odd are placeholders in it." in message


def test_best_that_was_reduced_keeps_the_history_of_its_run(tmp_path):
    described, text = metadata(kind="best"), '{"monitor": "val_loss", "mode": "min"}'
    path = tmp_path / "a.ckpt"
    ours = {"ranks": [1], "gradients": {}, "sums": None, "metadata": described, HISTORY_KEY: text}
    path.write_bytes(b"".join(Snapshot.of({"state_dict": {"weight": torch.zeros(3)}, KEY: ours}).pieces()))
    weights_alone.reduce_to_weights(Refusing(tmp_path), str(path))
    assert read_info(path).weights_only
    assert history_text(path) == text
    assert verify.problem(path) is None
