"""What the tests upload: real checkpoints, and contents that do something to the world while they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import torch
from catalog.conftest import metadata

from checkpointable.storage.format import verify
from checkpointable.storage.staging.snapshot import Snapshot

PART = 5 << 20  # the least that S3 takes
_PIECE = 1 << 20


class Bytes:
    """The simplest content.

    Args:
        data: The bytes.
        on_piece: Called with the number of each piece, from 0, before it is given; counted over all readings.
    """

    def __init__(self, data: bytes, on_piece: Callable[[int], None] = lambda number: None) -> None:
        self.data = data
        self.size = len(data)
        self._on_piece = on_piece
        self._number = 0

    def pieces(self) -> Iterator[memoryview]:
        for start in range(0, len(self.data), _PIECE):
            self._on_piece(self._number)
            self._number += 1
            yield memoryview(self.data)[start : start + _PIECE]

    def problem_in(self, file: BinaryIO) -> str | None:
        return verify.problem_in(file)


def checkpoint(size: int = 4000, *, score: float | None = None, **given: Any) -> bytes:
    """The file of a checkpoint with a tensor of so many bytes."""
    if score is not None:
        given["score"] = {"monitor": "val_loss", "mode": "min", "value": score}
    given.setdefault("batches", given.get("batch", 0))
    weight = torch.arange(size // 4, dtype=torch.int32)
    return b"".join(Snapshot({"state_dict": {"weight": weight}}, metadata(**given)).pieces())
