"""A save, apart from any training: room, name, commit, links, and the end of what is outdated."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from catalog.conftest import metadata
from nets import write_archive

from checkpointable.policy.lineage import UNKNOWN
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.policy.reasons import Reason
from checkpointable.saving.kept_files import KeptFiles
from checkpointable.saving.save_task import SaveRequest, SaveResult, SaveTask, base_name
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

    def link(self, link: str, target: str) -> None:
        self._do("link", link)
        super().link(link, target)

    def _do(self, what: str, path: str) -> None:
        if what in self.refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.events.append((what, os.path.basename(path)))


def requested(options: Options, batch: int, *reasons: str, score: float | None) -> SaveRequest:
    position, given = Position(0, batch, batch, batch), frozenset(map(Reason, reasons)) or frozenset({Reason.INTERVAL})
    return SaveRequest(
        run_id=RUN,
        lineage=UNKNOWN,
        position=position,
        reasons=given,
        score=score,
        weights_only=options.holds_weights_only(given),
        base_name=base_name(options, position, {}, is_best=score is not None),
    )


class Saving:
    """A run that saves, one task after the other."""

    def __init__(self, store: Refusing, **options: Any) -> None:
        self.store = store
        self.options = Options(**{"save_last_k": 1, "save_top_k": 1, "monitor": "val_loss", **options})
        self.kept = KeptFiles(retention=self.options.retention)
        self.resumed_from: str | None = None
        self.content = snapshot

    def save(
        self, batch: int, *reasons: str, score: float | None = None, size: bool = True, **content: Any
    ) -> SaveResult:
        content = self.content(batch, **content)
        result = SaveTask(
            store=self.store,
            write=partial(self.store.write, content),
            size=content.size if size else None,
            request=requested(self.options, batch, *reasons, score=score),
            kept=self.kept,
            options=self.options,
            resumed_from=self.resumed_from,
        ).run()
        self.kept = result.kept
        return result


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Refusing]:
    return Refusing(tmp_path)


def there(store: Refusing) -> list[str]:
    return sorted(path.name for path in Path(store.directory).iterdir() if not path.is_symlink())


def pointed(store: Refusing) -> dict[str, str]:
    return {path.name: os.readlink(path) for path in Path(store.directory).iterdir() if path.is_symlink()}


def test_task_writes_then_points_then_deletes(store):
    run = Saving(store)
    run.save(1)
    store.events.clear()
    result = run.save(2)
    assert store.events == [
        ("write", "epoch_0_batch_2.ckpt"),
        ("link", "last.ckpt"),
        ("remove", "epoch_0_batch_1.ckpt"),
    ]
    assert result.path == store.path("epoch_0_batch_2.ckpt")
    assert result.problem is None
    assert result.messages == []
    assert [file.path for file in result.kept.files] == [result.path]


def test_task_of_a_best_points_to_it_and_keeps_the_newest(store):
    run = Saving(store)
    run.save(1)
    run.save(2, "best", score=0.5)
    assert there(store) == ["best_val_loss_epoch_0.ckpt", "epoch_0_batch_1.ckpt"]
    assert pointed(store) == {"last.ckpt": "best_val_loss_epoch_0.ckpt", "best.ckpt": "best_val_loss_epoch_0.ckpt"}


def test_task_whose_write_is_refused_changes_nothing_and_says_why(store):
    run = Saving(store)
    first = run.save(1)
    store.refused.add("write")
    result = run.save(2)
    assert result.path is None
    assert "Input/output error" in result.problem
    assert result.kept == first.kept
    assert there(store) == ["epoch_0_batch_1.ckpt"]
    assert pointed(store) == {"last.ckpt": "epoch_0_batch_1.ckpt"}
    store.refused.clear()
    assert run.save(3).path == store.path("epoch_0_batch_3.ckpt")


def test_task_whose_removal_is_refused_has_saved_and_says_what_stays(store):
    run = Saving(store)
    first = run.save(1)
    store.refused.add("remove")
    result = run.save(2)
    assert result.problem is None
    assert len(result.messages) == 1
    assert f"cannot delete the outdated checkpoint {first.path}" in result.messages[0]
    assert "The next save tries again." in result.messages[0]
    assert there(store) == ["epoch_0_batch_1.ckpt", "epoch_0_batch_2.ckpt"]
    assert run.kept.kept == {result.path}
    store.refused.clear()
    assert run.save(3).messages == []
    assert there(store) == ["epoch_0_batch_3.ckpt"]


def test_task_whose_link_is_refused_has_saved_and_says_so(store):
    store.refused.add("link")
    result = Saving(store).save(1)
    assert result.path == store.path("epoch_0_batch_1.ckpt")
    assert f"cannot move {store.path('last.ckpt')} to {result.path}" in result.messages[0]
    assert "The checkpoint itself is safe." in result.messages[0]


def test_task_with_a_bug_raises(store):
    run = Saving(store)

    def broken(content: Any, path: str, *, overwrite: bool) -> None:
        raise KeyError("a bug")

    store.write = broken
    with pytest.raises(KeyError, match="a bug"):
        run.save(1)


def test_task_where_another_run_has_the_name_takes_the_next_version(store):
    with open(store.path("epoch_0_batch_1.ckpt"), "wb") as file:
        write_archive({"weight": torch.zeros(3)}, file, {"run_id": "another", "kind": "interval"})
    result = Saving(store).save(1)
    assert result.path == store.path("epoch_0_batch_1-v1.ckpt")
    assert "epoch_0_batch_1.ckpt" in there(store)


def test_task_never_deletes_what_it_has_resumed_from_or_another_has_written_over(store):
    run = Saving(store)
    run.resumed_from = run.save(1).path
    run.save(2)
    with open(store.path("epoch_0_batch_2.ckpt"), "wb") as file:
        write_archive({"weight": torch.zeros(3)}, file, {"run_id": "another", "kind": "interval"})
    run.save(3)
    assert there(store) == ["epoch_0_batch_1.ckpt", "epoch_0_batch_2.ckpt", "epoch_0_batch_3.ckpt"]


def test_task_notices_that_a_file_is_gone_once(store):
    run = Saving(store, save_last_k=3)
    gone = run.save(1).path
    run.save(2)
    os.unlink(gone)
    result = run.save(3)
    assert f"checkpoints of this run are gone: {gone}" in result.messages[0]
    assert run.save(4).messages == []


def test_task_that_notices_that_the_best_is_gone_removes_the_link_to_it(store):
    run = Saving(store)
    os.unlink(run.save(1, "best", score=0.5).path)
    run.save(2)
    assert pointed(store) == {"last.ckpt": "epoch_0_batch_2.ckpt"}


def test_task_where_a_file_stands_for_a_directory_of_the_name_fails_and_ends(store):
    Path(store.path("0")).write_text("a file, where the template asks for a directory")
    result = Saving(store, filename="{epoch}/{batch}").save(1)
    assert result.path is None
    assert "Not a directory" in result.problem
