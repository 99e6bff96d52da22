"""What a table of checkpoints shows: its rows, which of them are marked, and which are folded away."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from checkpointable.catalog import select
from checkpointable.catalog.info import CheckpointInfo, size_in_words
from checkpointable.catalog.scan import Unreadable

COLUMNS = ("mark", "kind", "epoch", "batch", "step", "score", "size", "created", "name")
DAMAGED = "damaged"
NUMBERS = {"epoch", "batch", "step", "size"}
_MOST_ROWS = 20
_HEAD, _TAIL = 8, 11  # shown of more rows, beside the best
_MOST_UNREADABLE = 5


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a table, each with a cell for each of ``COLUMNS``, and what stands above them."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def folded(self) -> Iterator[tuple[str, ...] | int]:
        """The rows that are shown, and between them how many are not. Marked ones are always shown, but for damaged."""
        last = len(self.rows)
        if last <= _MOST_ROWS:
            yield from self.rows
            return
        shown = {*range(_HEAD), *range(last - _TAIL, last)}
        shown |= {number for number, row in enumerate(self.rows) if row[0] not in ("", DAMAGED)}
        hidden: list[tuple[str, ...]] = []
        for number, row in enumerate(self.rows):
            if number not in shown:
                hidden.append(row)
                continue
            if hidden:
                yield len(hidden) if len(hidden) > 1 else hidden[0]
            hidden = []
            yield row


def rows_of(
    infos: Sequence[CheckpointInfo], root: str, marks: Mapping[str, str], unreadable: Sequence[Unreadable]
) -> Rows:
    """The rows for checkpoints, in the given order.

    Args:
        infos: The checkpoints.
        root: Names are relative to it.
        marks: The mark of some, by path, as ``marks_of`` gives it.
        unreadable: Files without metadata, which come last.
    """
    monitors = {str(info.monitor) for info in infos if info.score is not None}
    alone = monitors.pop() if len(monitors) == 1 else None
    rows = [
        (
            marks.get(info.path, ""),
            kind_in_words(info),
            str(info.epoch),
            str(info.batch),
            str(info.step),
            "" if info.score is None else f"{'' if alone else f'{info.monitor}='}{info.score:.4g}",
            size_in_words(info.size),
            datetime.fromtimestamp(info.created).strftime("%Y-%m-%d %H:%M"),
            _name(info.path, root),
        )
        for info in infos
    ]
    for lost in unreadable[:_MOST_UNREADABLE]:
        rows.append((DAMAGED, "", "", "", "", "", "", "", _name(lost.path, root)))
    header = ("", *COLUMNS[1:5], alone or "score", *COLUMNS[6:])
    return Rows(header=_printable(header), rows=[_printable(row) for row in rows])


def marks_of(infos: Sequence[CheckpointInfo], damaged: Container[str] = ()) -> dict[str, str]:
    """``"best"``, ``"last"`` (the newest to resume from), both, or ``"damaged"``, by path.

    Args:
        infos: The checkpoints, newest last.
        damaged: The paths of those that are known to be damaged. All others are taken for intact.
    """
    intact = [info for info in infos if info.path not in damaged]
    best = next((info.path for info in select.by_score(intact, None)), None)
    last = next((info.path for info in reversed(intact) if not info.weights_only), None)
    marks = {info.path: DAMAGED for info in infos if info.path in damaged}
    for path, mark in ((best, "best"), (last, "last")):
        if path is not None:
            marks[path] = f"{marks[path]}, {mark}" if path in marks else mark
    return marks


def kind_in_words(info: CheckpointInfo) -> str:
    """Why a checkpoint was saved, and what it lacks."""
    held = {
        "averaged": info.weights == "averaged",
        "weights only": info.weights_only,
        "trainable only": info.frozen_checksum is not None,
    }
    return ", ".join([info.kind, *(words for words, is_so in held.items() if is_so)])


def _name(path: str, root: str) -> str:
    if path != root and os.path.isdir(root):
        return os.path.relpath(path, root)
    return path.removeprefix(f"{root}/") if path.startswith(f"{root}/") else os.path.basename(path)


def _printable(cells: tuple[str, ...]) -> tuple[str, ...]:
    """The cells without characters that could move a terminal's cursor, as file names may have."""
    return tuple("".join(it if it.isprintable() else "?" for it in cell) for cell in cells)
