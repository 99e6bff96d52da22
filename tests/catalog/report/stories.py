"""Runs as they lie on disk after kills and resumes, each file with the history that it would have. Nothing trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from catalog.conftest import metadata

from checkpointable.policy.as_builtin import as_builtin
from checkpointable.policy.history import History, Point, SavedPoint, SessionRecord
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.position import Position
from checkpointable.storage.format import archive, zip_layout

BATCHES = 100  # of an epoch
START = 1_790_000_000.0
EPOCH_SECONDS = 90.0
NOT_EXACT = "train loader: approximate (an iterable data set is read again from its start)"


def content_of(stated: dict[str, Any], history: History | None, *, size: int = 1000) -> bytes:
    """A checkpoint file of ours, with bytes that are no tensors, and with a history if one is given."""
    members = {
        "data.pkl": b"no pickle",
        "data/0": b"\x2a" * size,
        zip_layout.ID: bytes(zip_layout.ID_SIZE),
        archive.MEMBER: archive.encode(stated),
    }
    if history is not None:
        members[archive.HISTORY_MEMBER] = archive.encode(as_builtin(history))
    places = zip_layout.lay_out([(name, len(content)) for name, content in members.items()], alignment=64)
    return b"".join(zip_layout.pieces(places, list(members.values()), sealed=True))


@dataclass(frozen=True)
class Written:
    """One file, and where its run stood."""

    path: Path
    position: Position
    score: float | None
    lineage: Lineage
    history: History


@dataclass
class Story:
    """A run that is told session by session.

    ``value`` gives the monitored value of an epoch; ``drift`` is added for each session, so that branches differ.
    """

    folder: Path
    run_id: str = "a1b2c3d4e5f6"
    monitor: str = "val_loss"
    mode: str = "min"
    value: Callable[[int], float] = lambda epoch: 2.2 * math.exp(-epoch / 25) + 0.3 + 0.08 * math.sin(epoch * 1.7)
    drift: float = 0.03
    more: Sequence[str] = ("train_loss", "val_accuracy", "lr-AdamW")
    has_history: bool = True
    files: list[Written] = field(default_factory=list)
    sessions: int = 0
    clock: float = START

    def session(
        self,
        epochs: int,
        source: Written | None = None,
        *,
        keeps: Callable[[int], bool] = lambda epoch: True,
        ended: str | None = None,
        is_further: bool = False,
        **told: Any,
    ) -> Written:
        """One call of ``fit`` that trains so many epochs, and saves at the end of each. Returns its last file.

        ``source`` is the file that it resumes from or, if it is a further call in the same process, that of the end of
        the call before. ``keeps`` says of which epochs the files stay, ``told`` is what the session's record tells.
        """
        self.sessions += 1
        lineage, history, begins = Lineage(attempt=""), History(monitor=self.monitor, mode=self.mode), Position()
        if source is not None:
            lineage = source.lineage.resume(source.position.batches).after(self.sessions - 1)
            history, begins = source.history, source.position
        lineage = replace(lineage, attempt=f"attempt{self.sessions}")
        if source is not None and is_further:
            lineage = source.lineage
        surroundings = {"command": ("train.py", "--lr", "0.001"), "commit": "0123456789abcdef0123", "is_dirty": False}
        record = SessionRecord(
            attempt=lineage.attempt,
            generation=lineage.generation,
            started=self.clock,
            begins=begins,
            resumed_from=None if source is None or is_further else str(source.path),
            last_seen=self.clock,
            ends=begins,
            **{"host": "gpu-01", **surroundings, **told},
        )
        written: list[Written] = []
        for epoch in range(begins.epoch, begins.epoch + epochs):
            self.clock += EPOCH_SECONDS
            position = Position(epoch + 1, 0, BATCHES * (epoch + 1), BATCHES * (epoch + 1))
            is_last = epoch == begins.epoch + epochs - 1
            record = replace(record, last_seen=self.clock, ends=position, ended=ended if is_last else None)
            written.append(self._save(epoch, position, lineage, history, record, is_kept=keeps(epoch)))
            history = written[-1].history
        self.files += [file for file in written if file.path.exists()]
        self.clock += 60.0
        return written[-1]

    def _save(
        self, epoch: int, at: Position, lineage: Lineage, history: History, record: SessionRecord, *, is_kept: bool
    ) -> Written:
        value, sign = self.value(epoch) + self.drift * self.sessions, -1 if self.mode == "max" else 1
        before = [point.metrics[self.monitor] for point in history.points]
        is_best = not math.isnan(value) and all(sign * value < sign * it for it in before if not math.isnan(it))
        kind, score = ("best", value) if is_best else ("epoch", None)
        metrics = {self.monitor: value, **{name: 1 / (1 + epoch + place) for place, name in enumerate(self.more)}}
        path = self.folder / f"epoch_{epoch}_{lineage.attempt}.ckpt"
        save = SavedPoint(
            position=at,
            kind=kind,
            name=path.name,
            score=score,
            created=self.clock,
            blocked_seconds=0.004 + epoch % 7 / 1000,
            write_seconds=0.8,
            size_bytes=12_345_678,
        )
        history = replace(
            history,
            points=(*history.points, Point(position=at, metrics=metrics, ended="validation")),
            saves=(*history.saves, save),
            sessions=(*(it for it in history.sessions if it.started != record.started), record),
        )
        stated = metadata(
            kind=kind,
            run_id=self.run_id,
            epoch=at.epoch,
            batch=at.batch,
            step=at.step,
            batches=at.batches,
            metrics=metrics,
            created=self.clock,
            score=None if score is None else {"monitor": self.monitor, "mode": self.mode, "value": score},
            resumed_from=record.resumed_from,
            exactness="exact" if epoch % 2 else NOT_EXACT,
        )
        stated["lineage"] = as_builtin(lineage)
        if is_kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content_of(stated, history if self.has_history else None))
        return Written(path, at, score, lineage, history)


def with_kills_and_branches(folder: Path, **changed: Any) -> Story:
    """100 kept files of five sessions.

    Three sessions are killed, and four resume: one is confirmed, one differs. The epochs 20 to 24 of the first session,
    and those from 40 on of the second and the third, are branches that were left.
    """
    story = Story(folder, **changed)
    story.session(25)
    second = story.session(30, story.files[19], confirmed_batches=137)
    story.session(12, second, confirmed_batches=41, first_difference=5042, command=("train.py", "--lr", "0.0003"))
    commit = {"commit": "fedcba98765432100000", "is_dirty": True}
    fourth = story.session(14, story.files[44], ended="Ctrl-C", exactness="exact", **commit)
    changes = ("learning_rate: 0.001 in the file, 0.0003 in the script",)
    story.session(19, fourth, ended="finished", host="gpu-02", changes=changes)
    return story
