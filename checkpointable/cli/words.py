"""Numbers, times and names as people read them, and as wide as they may be."""

from __future__ import annotations

import unicodedata
from datetime import datetime

from checkpointable.catalog.info import CheckpointInfo, size_in_words
from checkpointable.catalog.rows import kind_in_words
from checkpointable.catalog.words import counted, duration, figure, moment

__all__ = ["cells", "clock", "counted", "cut", "duration", "kind", "moment", "number", "score", "size"]

_LONGEST_MONITOR = 20  # columns

size, kind, number = size_in_words, kind_in_words, figure


def clock(seconds: float) -> str:
    """The same, without the day if that is today."""
    then = datetime.fromtimestamp(seconds)
    return then.strftime("%H:%M:%S") if then.date() == datetime.now().date() else moment(seconds)


def score(info: CheckpointInfo, mark: str) -> str:
    """``"val_loss=0.25"``, or nothing for a file that was not saved as one of the best.

    ``mark`` stands for the middle of a long name.
    """
    if info.score is None:
        return ""
    return f"{cut(str(info.monitor), _LONGEST_MONITOR, mark, middle=True)}={number(info.score)}"


def cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(_cells_of(it) for it in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int, mark: str, *, middle: bool = False) -> str:
    """A text of at most so many columns; ``mark`` stands for what was cut off its end, or its middle."""
    if cells(text) <= width:
        return text
    room = width - len(mark)
    if room <= 0:
        return mark[:width]
    tail = _first(text[::-1], room // 2)[::-1] if middle else ""
    return f"{_first(text, room - cells(tail))}{mark}{tail}"


def _first(text: str, width: int) -> str:
    taken = 0
    for at, character in enumerate(text):
        taken += _cells_of(character)
        if taken > width:
            return text[:at]
    return text
