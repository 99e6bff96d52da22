"""Copies of another file, as last.ckpt and best.ckpt are where links are not supported."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import fsspec
import pytest
import torch
from catalog.conftest import Make, truncate

from checkpointable import CheckpointableWarning, Checkpoints, best, latest
from checkpointable.catalog.scan import infos


def names(path: Path | str) -> list[str]:
    return sorted(os.path.basename(info.path) for info in Checkpoints(path))


@pytest.mark.parametrize("copy", ["last.ckpt", "best.ckpt", "last-v1.ckpt", "Best-V2.ckpt"])
def test_copy_beside_its_original_is_not_listed(make: Make, tmp_path: Path, copy: str) -> None:
    original = make("epoch.ckpt", batch=2, score=0.5, created=1.5)
    make("other.ckpt", batch=1)
    shutil.copy(original, tmp_path / copy)
    assert names(tmp_path) == ["epoch.ckpt", "other.ckpt"]
    assert latest(tmp_path) == best(tmp_path) == original
    assert sorted(os.path.basename(info.path) for info in infos(tmp_path)) == ["epoch.ckpt", "other.ckpt"]


def test_copy_of_a_file_in_a_directory_below_is_not_listed(make: Make, tmp_path: Path) -> None:
    original = make("runs/0/epoch.ckpt")
    shutil.copy(original, tmp_path / "runs" / "last.ckpt")
    assert names(tmp_path) == ["epoch.ckpt"]
    assert latest(tmp_path) == original


def test_copy_on_a_remote_file_system_is_not_listed(make: Make) -> None:
    content = Path(make("epoch.ckpt")).read_bytes()
    memory = fsspec.filesystem("memory")
    try:
        for name in ("runs/0/epoch.ckpt", "runs/0/last.ckpt", "runs/1/last.ckpt"):
            memory.pipe_file(f"/copies/{name}", content)
        assert [info.path for info in Checkpoints("memory://copies")] == [
            "memory://copies/runs/0/epoch.ckpt",
            "memory://copies/runs/1/last.ckpt",
        ]
    finally:
        memory.rm("/copies", recursive=True)


def test_copy_that_is_all_that_is_left_is_found_and_is_no_file_of_the_run(make: Make, tmp_path: Path) -> None:
    original = make("epoch.ckpt", batch=2, score=0.5)
    make("other.ckpt", batch=1)
    copy = str(tmp_path / "best.ckpt")
    os.rename(original, copy)
    assert latest(tmp_path) == best(tmp_path) == copy
    assert [os.path.basename(info.path) for info in infos(tmp_path)] == ["other.ckpt"]


def test_copy_of_an_original_that_cannot_be_read_is_found(make: Make, tmp_path: Path) -> None:
    original = make("epoch.ckpt", batch=2)
    shutil.copy(original, tmp_path / "last.ckpt")
    truncate(original)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointableWarning)
        assert latest(tmp_path) == str(tmp_path / "last.ckpt")


@pytest.mark.parametrize("changed", [{"run_id": "another"}, {"created": 2.0}])
def test_file_of_such_a_name_that_is_another_save_is_listed(make: Make, tmp_path: Path, changed: dict) -> None:
    make("epoch.ckpt", created=1.0)
    make("last.ckpt", **{"created": 1.0, **changed})
    assert names(tmp_path) == ["epoch.ckpt", "last.ckpt"]


def test_file_of_such_a_name_that_was_saved_by_name_is_listed(make: Make, tmp_path: Path) -> None:
    make("epoch.ckpt")
    make("last.ckpt", kind="manual")
    torch.save({"state_dict": {}}, tmp_path / "best.ckpt")
    assert names(tmp_path) == ["epoch.ckpt", "last.ckpt"]
    assert [info.kind for info in infos(tmp_path)] == ["interval", "manual"]
    assert Checkpoints(tmp_path).verify().keys() == {str(tmp_path / name) for name in ("epoch.ckpt", "last.ckpt")}


def test_copy_of_another_name_is_listed(make: Make, tmp_path: Path) -> None:
    """The twin: only reserved names mark a copy."""
    shutil.copy(make("epoch.ckpt"), tmp_path / "backup.ckpt")
    assert names(tmp_path) == ["backup.ckpt", "epoch.ckpt"]
