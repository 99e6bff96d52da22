"""The files that torch writes for a checkpoint in shards: durable when the writer has finished."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from checkpointable.saving.shard_writer import DurableWriter


def not_synced(folder: Path, writer: FileSystemWriter, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The files that grew after they were synced for the last time, or never were."""
    synced: dict[int, int] = {}
    sync = os.fsync

    def noted(descriptor: int) -> None:
        sync(descriptor)
        status = os.fstat(descriptor)
        synced[status.st_ino] = status.st_size

    monkeypatch.setattr(os, "fsync", noted)
    save({"weight": torch.arange(5000.0), "step": 3}, storage_writer=writer, no_dist=True)
    monkeypatch.undo()
    return {path.name for path in folder.iterdir() if synced.get(path.stat().st_ino) != path.stat().st_size}


@pytest.mark.filterwarnings("ignore")
def test_writer_syncs_each_file_with_its_last_bytes(tmp_path, monkeypatch):
    assert not_synced(tmp_path, DurableWriter(tmp_path), monkeypatch) == set()
    assert {path.name for path in tmp_path.iterdir()} == {".metadata", "__0_0.distcp"}


@pytest.mark.filterwarnings("ignore")
def test_writer_of_torch_syncs_before_the_last_bytes(tmp_path, monkeypatch):
    """The twin, and why there is a writer of ours."""
    assert not_synced(tmp_path, FileSystemWriter(tmp_path, sync_files=True), monkeypatch)


@pytest.mark.filterwarnings("ignore")
def test_file_that_cannot_be_synced_is_an_error(tmp_path, monkeypatch):
    def refuse(descriptor: int) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(BaseException, match="the disk is gone"):  # torch's own error is no ``Exception``
        save({"weight": torch.arange(5.0)}, storage_writer=DurableWriter(tmp_path), no_dist=True)
