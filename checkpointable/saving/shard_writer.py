"""Writes the shards of a checkpoint durably, with what torch has for that.

torch (2.13 and earlier) syncs a file before its last bytes have left the buffer of the file object. So each file is
synced again when it is closed, by the rank that has written it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult

_METADATA = ".metadata"  # as torch names the file that says which tensor lies where


class DurableWriter(FileSystemWriter):
    """torch's writer, whose files are durable once it has finished. The caller makes their names durable.

    Args:
        folder: An empty directory that all ranks share.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, sync_files=False)
        self._folder = folder

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        """Write the shards of this rank, and sync them."""
        written = super().write_data(plan, planner)
        self._sync({result.storage_data.relative_path for result in written.wait()})
        return written

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On rank 0, when all have written: write which tensor lies where, and sync that."""
        super().finish(metadata, results)
        self._sync([_METADATA])

    def _sync(self, names: Iterable[str]) -> None:
        for name in names:
            with open(self._folder / name, "r+b") as file:
                os.fsync(file.fileno())
