"""Draws the curve of a run in one line of text, and below it the sessions that trained it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from checkpointable.cli.one_run import FINISHED, Session
from checkpointable.policy.history import MeasuredValue

_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
_MUCH = 4
_MISSING = "?"  # for a value that is not finite


def wants_log_scale(curve: Sequence[MeasuredValue], mode: str | None) -> bool:
    """Whether values that should fall span so much that, drawn linearly, the first would hide how later ones change."""
    if mode != "min":
        return False
    finite = [it.value for it in curve if math.isfinite(it.value)]
    return bool(finite) and min(finite) > 0 and max(finite) >= _MUCH * min(finite)


def sparkline(curve: Sequence[MeasuredValue], end: int, width: int, *, is_log: bool, is_unicode: bool) -> str:
    """The values from the first batch of the run to its last one, ``end``: each lasts until the next was measured."""
    bars = _BARS if is_unicode else _PLAIN_BARS
    scaled = math.log if is_log else float
    finite = [scaled(it.value) for it in curve if math.isfinite(it.value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    drawn = [" "] * width
    for number, point in enumerate(curve):
        until = curve[number + 1].position.batches if number + 1 < len(curve) else end
        first, last = _column(point.position.batches, end, width), _column(until, end, width)
        bar = _MISSING
        if math.isfinite(point.value):
            share = (scaled(point.value) - low) / (high - low) if high > low else 0.0
            bar = bars[min(int(share * len(bars)), len(bars) - 1)]
        for column in range(first, max(last, first + 1)):
            drawn[column] = bar
        drawn[width - 1] = bar
    return "".join(drawn)


def timeline(sessions: Sequence[Session], end: int, width: int, *, is_unicode: bool) -> str:
    """One number for each session where it began, a line as far as it came, and a mark where it was not finished."""
    rule, cut, done = ("─", "✗", "┤") if is_unicode else ("-", "x", "|")
    drawn = [" "] * width
    for session in sessions:
        begins = 0 if session.begins is None else session.begins.batches
        first, last = _column(begins, end, width), _column(session.ends.batches, end, width)
        for column in range(first, last + 1):
            drawn[column] = rule
        drawn[last] = done if session.ended == FINISHED else cut
        for column, digit in enumerate(str(session.number), first):
            if column < width and (column < last or column == first):
                drawn[column] = digit
    return "".join(drawn)


def _column(batches: int, end: int, width: int) -> int:
    """Where a number of batches lies, of ``end``."""
    return min(max(batches * width // max(end, 1), 0), width - 1)
