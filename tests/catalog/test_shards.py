"""Checkpoints in shards, beside those of one file: listed, chosen, verified, deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from catalog.conftest import metadata

from checkpointable import CheckpointableWarning, CheckpointFileError, Checkpoints, latest
from checkpointable.storage import direct
from checkpointable.storage.format import shards


@pytest.fixture
def make_shards(tmp_path):
    def write(name: str, **given) -> str:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for file in (".metadata", "__0_0.distcp", "meta.pt"):
            (folder / file).write_bytes(file.encode() * 100)
        given.setdefault("batches", given.get("batch", 0))
        shards.mark(folder, metadata(**given), {}, direct.open_file)
        return str(folder)

    return write


def test_newest_is_found_among_files_and_directories(make, make_shards, tmp_path):
    make("a.ckpt", batch=1)
    second = make_shards("b.ckpt", batch=2)
    assert latest(tmp_path) == second
    third = make("c.ckpt", batch=3)
    assert latest(tmp_path) == third
    assert [info.batch for info in Checkpoints(tmp_path)] == [1, 2, 3]
    assert Checkpoints(tmp_path)[1].size == 100 * len(".metadata__0_0.distcpmeta.pt")


def test_directory_is_found_by_its_own_path_and_by_a_link(make_shards, tmp_path):
    path = make_shards("a.ckpt", batch=1)
    (tmp_path / "last.ckpt").symlink_to("a.ckpt")
    assert latest(path) == latest(tmp_path / "last.ckpt") == path
    assert [info.path for info in Checkpoints(tmp_path)] == [path]


@pytest.mark.parametrize("damaged", ["__0_0.distcp", shards.MARKER])
def test_damaged_directory_is_skipped_with_the_reason(make_shards, tmp_path, damaged):
    first, second = make_shards("a.ckpt", batch=1), make_shards("b.ckpt", batch=2)
    place = Path(second) / damaged
    place.write_bytes(place.read_bytes()[:-1] + b"x")
    with pytest.warns(CheckpointableWarning, match=rf"skipped .*b\.ckpt.*: .*{damaged}"):
        assert latest(tmp_path) == first
    assert Checkpoints(tmp_path).verify()[first] is None
    assert damaged in str(Checkpoints(tmp_path).verify()[second])


def test_directory_that_is_still_being_written_is_none(make_shards, tmp_path):
    os.rename(make_shards("a.ckpt", batch=1), tmp_path / ".checkpointable-host-1-ab.tmp")
    assert latest(tmp_path) is None
    (tmp_path / "b.ckpt").mkdir()
    (tmp_path / "b.ckpt" / "__0_0.distcp").write_bytes(b"x")
    assert latest(tmp_path) is None
    assert len(Checkpoints(tmp_path)) == 0


def test_prune_deletes_whole_directories(make_shards, tmp_path):
    outdated = [make_shards(f"{batch}.ckpt", batch=batch) for batch in range(1, 4)][:2]
    assert Checkpoints(tmp_path).prune(dry_run=False) == outdated
    assert os.listdir(tmp_path) == ["3.ckpt"]


def test_marker_without_what_a_checkpoint_states_is_an_error(make_shards, tmp_path):
    path = make_shards("a.ckpt", batch=1)
    (Path(path) / shards.MARKER).unlink()
    shards.mark(Path(path), {"epoch": 1}, {}, direct.open_file)
    (lost,) = Checkpoints(tmp_path).verify().items()
    assert "has metadata without" in str(lost[1])
    with pytest.raises(CheckpointFileError, match="not a checkpoint"):
        latest(Path(path) / "meta.pt")
