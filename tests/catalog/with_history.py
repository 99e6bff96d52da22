"""Checkpoint files that tell the history of their run, as a fit writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from catalog.conftest import metadata

from checkpointable.policy.as_builtin import as_builtin
from checkpointable.policy.history import History, Point, SessionRecord
from checkpointable.policy.position import Position
from checkpointable.storage.format import archive, torch_records, zip_layout

BATCHES = 10  # of an epoch


def history(values: list[float], killed_at: tuple[int, ...] = (), **given: Any) -> History:
    """One value of ``val_loss`` at the end of each epoch, and a kill and a resume after so many batches."""
    points = [
        Point(position=at(BATCHES * (epoch + 1)), metrics={"val_loss": value}, ended="validation")
        for epoch, value in enumerate(values)
    ]
    starts = (0, *killed_at)
    sessions = [
        SessionRecord(
            attempt=str(number), generation=number, started=10.0 * number, begins=at(batches), command=("train.py",),
            resumed_from="a.ckpt" if number else None, commit=None, is_dirty=None, host="host", last_seen=10.0 * number,
            ends=at(batches), ended=None,
        )
        for number, batches in enumerate(starts)
    ]  # fmt: skip
    return History(
        **{"monitor": "val_loss", "mode": "min", "points": tuple(points), "sessions": tuple(sessions), **given}
    )


def at(batches: int) -> Position:
    """The position after so many batches in all."""
    return Position(batches // BATCHES, batches % BATCHES, batches, batches)


def write(path: Path, told: History | dict[str, Any] | None, **given: Any) -> str:
    """A file with the metadata of ``catalog.conftest.metadata``, and a history."""
    members = torch_records.records({"state_dict": {"weight": torch.arange(1000.0)}})
    members += [("version", torch_records.version()), (zip_layout.ID, bytes(zip_layout.ID_SIZE))]
    if told is not None:
        plain = as_builtin(told) if isinstance(told, History) else told
        members.append((archive.HISTORY_MEMBER, archive.encode(plain)))
    members.append((archive.MEMBER, archive.encode(metadata(**given))))
    data = [it if isinstance(it, bytes) else bytes(it) for _, it in members]
    sizes = [(name, len(it)) for (name, _), it in zip(members, data, strict=True)]
    places = zip_layout.lay_out(sizes, alignment=torch_records.alignment())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(zip_layout.pieces(places, data, sealed=True)))
    return str(path)
