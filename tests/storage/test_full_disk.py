"""A disk that is full: a real one, of two megabytes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from nets import durable_io

from checkpointable._errors import SaveError
from checkpointable.storage.commit import commit, prepare
from checkpointable.storage.format import verify

SIZE = 2 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small disk is not allowed here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def fill_up(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))


def checkpoint(size_bytes: int) -> dict:
    return {"weights": torch.zeros(size_bytes, dtype=torch.uint8), "checkpointable": {"metadata": {"size": size_bytes}}}


@pytest.mark.parametrize("overwrite", [True, False])
def test_commit_that_does_not_fit_raises_and_leaves_no_temporary(small_disk, overwrite):
    with pytest.raises(OSError, match="No space left on device") as caught:
        commit(
            small_disk / "a.ckpt",
            lambda file: file.write(bytes(SIZE + 1)),
            problem=verify.problem,
            overwrite=overwrite,
        )
    assert caught.value.errno == errno.ENOSPC
    assert names(small_disk) == []


def test_commit_that_does_not_fit_beside_the_old_file_leaves_it_intact(small_disk):
    path, old = small_disk / "a.ckpt", os.urandom(SIZE // 2 + 4096)
    path.write_bytes(old)
    with pytest.raises(OSError, match="No space left on device"):
        commit(path, lambda file: file.write(bytes(len(old))), problem=lambda _: None, overwrite=True)
    assert path.read_bytes() == old
    assert names(small_disk) == ["a.ckpt"]


def test_writing_in_place_on_a_full_disk_loses_the_old_file(small_disk):
    """The twin: what the commit protects from."""
    path, old = small_disk / "a.ckpt", os.urandom(SIZE // 2 + 4096)
    path.write_bytes(old)
    with pytest.raises(OSError, match="No space left on device"):
        fill_up(path)
    assert path.read_bytes() != old


def test_commit_after_space_is_freed_succeeds(small_disk):
    filler, path = small_disk / "filler", small_disk / "a.ckpt"
    filler.write_bytes(bytes(SIZE - 8192))
    with pytest.raises(OSError, match="No space left on device"):
        commit(path, lambda file: file.write(bytes(SIZE // 2)), problem=lambda _: None, overwrite=False)
    filler.unlink()
    commit(path, lambda file: file.write(bytes(SIZE // 2)), problem=lambda _: None, overwrite=False)
    assert path.stat().st_size == SIZE // 2


def test_prepare_on_a_full_disk_says_to_free_space(small_disk):
    with pytest.raises(OSError, match="No space left on device"):
        fill_up(small_disk / "filler")
    with pytest.raises(SaveError, match=r"No space left on device\. .* or free space there\."):
        prepare(small_disk)
    assert names(small_disk) == ["filler"]


@pytest.mark.parametrize("size_bytes", [SIZE, 2 * SIZE])
def test_save_of_a_checkpoint_that_does_not_fit_raises_and_leaves_the_old_one_intact(small_disk, size_bytes):
    path, ours = small_disk / "a.ckpt", durable_io()
    ours.save_checkpoint(checkpoint(1000), path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        ours.save_checkpoint(checkpoint(size_bytes), path)
    assert path.read_bytes() == before
    assert names(small_disk) == ["a.ckpt"]
    assert verify.problem(path) is None
