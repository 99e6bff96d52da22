"""Runs on disk for the tests of the command: real files, with and without the history of their run."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from catalog.conftest import metadata
from nets import write_archive

from checkpointable.policy.as_builtin import as_builtin
from checkpointable.policy.history import History, Point, SessionRecord
from checkpointable.policy.position import Position
from checkpointable.storage.format import archive, torch_records, zip_layout

BATCHES = 10  # of an epoch
WEIGHTS = {"state_dict": {"weight": torch.arange(10000.0)}}
FIRST = {"run_id": "run1", "lineage": {"attempt": "attempt0", "generation": 0, "ancestors": []}}  # of the killed run


def at(epoch: int, batch: int = 0) -> Position:
    batches = epoch * BATCHES + batch
    return Position(epoch=epoch, batch=batch, step=batches, batches=batches)


def session(number: int, begins: Position, ends: Position, **given: Any) -> SessionRecord:
    """One that lasted a minute, of a script that resumes by itself."""
    started = 1_700_000_000.0 + 600 * number
    return SessionRecord(
        **{
            "attempt": f"attempt{number}",
            "generation": number,
            "started": started,
            "begins": begins,
            "resumed_from": None if number == 0 else f"runs/epoch_{begins.epoch}.ckpt",
            "command": ("train.py", "--width", "8"),
            "commit": "0123abc",
            "is_dirty": False,
            "host": "here",
            "last_seen": started + 60,
            "ends": ends,
            **given,
        }
    )


def history(
    values: list[float], sessions: list[SessionRecord], monitor: str = "val_loss", mode: str = "min"
) -> History:
    """One value after each epoch."""
    points = [
        Point(position=at(epoch), metrics={monitor: value, "other": 0.0}, ended="validation")
        for epoch, value in enumerate(values, 1)
    ]
    return History(monitor=monitor, mode=mode, points=tuple(points), sessions=tuple(sessions))


def write(
    path: Path,
    *,
    contents: Mapping[str, Any] | None = None,
    of_run: History | None = None,
    score: float | None = None,
    monitor: str = "val_loss",
    mode: str = "min",
    **given: Any,
) -> str:
    """A checkpoint file at that path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if score is not None:
        given["score"] = {"monitor": monitor, "mode": mode, "value": score}
        given.setdefault("metrics", {monitor: score})
    position = given.pop("at", at(0))
    given = {"created": 1_700_000_000.0 + position.batches, **vars(position), **given}
    made = io.BytesIO()
    write_archive(dict(contents or {"state_dict": {"weight": torch.arange(100.0)}}), made, metadata(**given))
    path.write_bytes(made.getvalue() if of_run is None else _with_history(made.getvalue(), of_run))
    return str(path)


def _with_history(data: bytes, of_run: History) -> bytes:
    """The same file with one more member, before the metadata."""
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        members = [(name.partition("/")[2], opened.read(name)) for name in opened.namelist()]
    members.insert(-1, (archive.HISTORY_MEMBER, archive.encode(as_builtin(of_run))))
    places = zip_layout.lay_out(
        [(name, len(content)) for name, content in members], alignment=torch_records.alignment()
    )
    return b"".join(zip_layout.pieces(places, [content for _, content in members], sealed=True))


def killed_run(folder: Path) -> list[str]:
    """A run of six epochs that was killed twice and is not finished: two files are left."""
    values = [2.0, 1.5, 1.1, 1.2, 0.9, 0.95]
    sessions = [
        session(0, at(0), at(2, 5)),
        session(1, at(2), at(4), confirmed_batches=5),
        session(2, at(4), at(6), changes=("learning_rate: 0.1 -> 0.01",)),
    ]
    whole = history(values, sessions)
    lineage = {
        "attempt": "attempt2",
        "generation": 2,
        "ancestors": [{"attempt": "attempt0", "batches": 20}, {"attempt": "attempt1", "batches": 40}],
    }
    shared = {"lineage": lineage, "run_id": "run1", "exactness": "exact"}
    best = write(
        folder / "best_val_loss_epoch_4.ckpt",
        contents=WEIGHTS,
        of_run=history(values[:5], sessions),
        score=0.9,
        kind="best",
        at=at(5),
        **shared,
    )
    newest = write(folder / "epoch_6_batch_0.ckpt", contents=WEIGHTS, of_run=whole, kind="interval", at=at(6), **shared)
    return [best, newest]
