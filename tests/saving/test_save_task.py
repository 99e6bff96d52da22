"""A save, apart from any training: room, name, commit, links, and the end of what is outdated."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from catalog.conftest import metadata
from nets import write_archive

from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.saving.kept_files import Order, Shelf
from checkpointable.saving.save_task import Job, Outcome
from checkpointable.storage.local import LocalStore
from checkpointable.storage.staging.snapshot import Snapshot

RUN = "this run"


def snapshot(batch: int, run_id: str = RUN, kind: str = "interval", *, values: int = 500) -> Snapshot:
    described = metadata(run_id=run_id, kind=kind, batch=batch, batches=batch)
    return Snapshot({"weight": torch.full((values,), float(batch))}, described)


class Refusing(LocalStore):
    """A real directory that refuses what it is told to, and has as much room as it is told.

    Attributes:
        refused: What raises.
        room: Free bytes, while there is none of the files of ``heavy``; each that is there takes its size.
        events: What was done, in order.
    """

    def __init__(self, directory: Path, *refused: str) -> None:
        super().__init__(directory)
        self.refused = set(refused)
        self.room: int | None = None
        self.events: list[tuple[str, str]] = []

    def free_bytes(self) -> int | None:
        if self.room is None:
            return None if "free_bytes" in self.refused else super().free_bytes()
        return self.room - sum(
            path.stat().st_size for path in Path(self.directory).glob("*.ckpt") if not path.is_symlink()
        )

    def write(self, content: Any, path: str, *, overwrite: bool) -> None:
        self._do("write", path)
        super().write(content, path, overwrite=overwrite)

    def remove(self, path: str) -> None:
        self._do("remove", path)
        super().remove(path)

    def point(self, role: str, target: str, owner: str) -> None:
        if target:
            self._do("point", role)
        super().point(role, target, owner)

    def _do(self, what: str, path: str) -> None:
        if what in self.refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.events.append((what, os.path.basename(path)))


class Saving:
    """A run that saves, one job after the other."""

    def __init__(self, store: Refusing, **options: Any) -> None:
        self.store = store
        self.options = Options(**{"save_last_k": 1, "save_top_k": 1, "monitor": "val_loss", **options})
        self.shelf = Shelf.empty(self.options)
        self.resumed_from: str | None = None

    def save(
        self, batch: int, *reasons: str, score: float | None = None, size: bool = True, values: int = 500
    ) -> Outcome:
        content = snapshot(batch, values=values)
        outcome = Job(
            store=self.store,
            write=lambda path, overwrite: self.store.write(content, path, overwrite=overwrite),
            size=content.size if size else None,
            order=Order(
                reasons=set(reasons) or {"interval"},
                position=Position(0, batch, batch, batch),
                metrics={},
                score=score,
            ),
            shelf=self.shelf,
            options=self.options,
            run_id=RUN,
            resumed_from=self.resumed_from,
        )()
        self.shelf = outcome.shelf
        return outcome


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Refusing]:
    return Refusing(tmp_path)


def there(store: Refusing) -> list[str]:
    return sorted(path.name for path in Path(store.directory).iterdir() if not path.is_symlink())


def pointed(store: Refusing) -> dict[str, str]:
    return {path.name: os.readlink(path) for path in Path(store.directory).iterdir() if path.is_symlink()}


def test_job_writes_then_points_then_deletes(store):
    run = Saving(store)
    run.save(1)
    store.events.clear()
    outcome = run.save(2)
    assert store.events == [
        ("write", "epoch_0_batch_2.ckpt"),
        ("point", "last"),
        ("remove", "epoch_0_batch_1.ckpt"),
    ]
    assert outcome.path == store.path("epoch_0_batch_2.ckpt")
    assert outcome.problem is None
    assert outcome.messages == []
    assert outcome.shelf.written == {outcome.path}


def test_job_of_a_best_points_to_it_and_keeps_the_newest(store):
    run = Saving(store)
    run.save(1)
    run.save(2, "best", score=0.5)
    assert there(store) == ["best_val_loss_epoch_0.ckpt", "epoch_0_batch_1.ckpt"]
    assert pointed(store) == {"last.ckpt": "best_val_loss_epoch_0.ckpt", "best.ckpt": "best_val_loss_epoch_0.ckpt"}


def test_job_whose_write_is_refused_changes_nothing_and_says_why(store):
    run = Saving(store)
    first = run.save(1)
    store.refused.add("write")
    outcome = run.save(2)
    assert outcome.path is None
    assert "Input/output error" in outcome.problem
    assert outcome.shelf == first.shelf
    assert there(store) == ["epoch_0_batch_1.ckpt"]
    assert pointed(store) == {"last.ckpt": "epoch_0_batch_1.ckpt"}
    store.refused.clear()
    assert run.save(3).path == store.path("epoch_0_batch_3.ckpt")


def test_job_whose_removal_is_refused_has_saved_and_says_what_stays(store):
    run = Saving(store)
    first = run.save(1)
    store.refused.add("remove")
    outcome = run.save(2)
    assert outcome.problem is None
    assert len(outcome.messages) == 1
    assert f"cannot delete the outdated checkpoint {first.path}" in outcome.messages[0]
    assert "It stays; delete it by hand." in outcome.messages[0]
    assert there(store) == ["epoch_0_batch_1.ckpt", "epoch_0_batch_2.ckpt"]
    assert run.save(3).messages[0].startswith(f"cannot delete the outdated checkpoint {outcome.path}")


def test_job_whose_link_is_refused_has_saved_and_says_so(store):
    store.refused.add("point")
    outcome = Saving(store).save(1)
    assert outcome.path == store.path("epoch_0_batch_1.ckpt")
    assert f"cannot move {store.path('last.ckpt')} to {outcome.path}" in outcome.messages[0]
    assert "The checkpoint itself is safe." in outcome.messages[0]


def test_job_with_a_bug_raises(store):
    run = Saving(store)

    def broken(content: Any, path: str, *, overwrite: bool) -> None:
        raise KeyError("a bug")

    store.write = broken
    with pytest.raises(KeyError, match="a bug"):
        run.save(1)


def test_job_where_another_run_has_the_name_takes_the_next_version(store):
    with open(store.path("epoch_0_batch_1.ckpt"), "wb") as file:
        write_archive({"weight": torch.zeros(3)}, file, {"run_id": "another", "kind": "interval"})
    outcome = Saving(store).save(1)
    assert outcome.path == store.path("epoch_0_batch_1-v1.ckpt")
    assert "epoch_0_batch_1.ckpt" in there(store)


def test_job_never_deletes_what_it_has_resumed_from_or_another_has_written_over(store):
    run = Saving(store)
    run.resumed_from = run.save(1).path
    run.save(2)
    with open(store.path("epoch_0_batch_2.ckpt"), "wb") as file:
        write_archive({"weight": torch.zeros(3)}, file, {"run_id": "another", "kind": "interval"})
    run.save(3)
    assert there(store) == ["epoch_0_batch_1.ckpt", "epoch_0_batch_2.ckpt", "epoch_0_batch_3.ckpt"]


def test_job_notices_that_a_file_is_gone_once(store):
    run = Saving(store, save_last_k=3)
    gone = run.save(1).path
    run.save(2)
    os.unlink(gone)
    outcome = run.save(3)
    assert f"somebody else has deleted checkpoints of this run: {gone}" in outcome.messages[0]
    assert run.save(4).messages == []


def test_job_that_notices_that_the_best_is_gone_removes_the_link_to_it(store):
    run = Saving(store)
    os.unlink(run.save(1, "best", score=0.5).path)
    run.save(2)
    assert pointed(store) == {"last.ckpt": "epoch_0_batch_2.ckpt"}


def test_job_where_a_file_stands_for_a_directory_of_the_name_fails_and_ends(store):
    Path(store.path("0")).write_text("a file, where the template asks for a directory")
    outcome = Saving(store, filename="{epoch}/{batch}").save(1)
    assert outcome.path is None
    assert "Not a directory" in outcome.problem
