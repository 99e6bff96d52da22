"""Numbers, times and positions as people read them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from datetime import datetime

from checkpointable.policy.position import Position

UNKNOWN = "unknown"
_LATEST = 253402300800.0 - 2 * 86400  # two days before the year 10000, in seconds since the epoch of Unix time


def duration(seconds: float) -> str:
    """How long something took, such as ``2 h 05 min``, ``12.3 s``, ``4.1 ms``: two units at most."""
    if not 0 <= seconds < math.inf:
        return UNKNOWN
    if 0 < seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if minutes < 60:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if hours < 72 else f"{hours // 24} days {hours % 24} h"


def moment(seconds: float) -> str:
    """A time of this machine's zone, from seconds since the epoch of Unix time."""
    if not 86400 <= seconds < _LATEST:  # NaN too; on the first day, a zone may lie before the epoch
        return UNKNOWN if seconds != 0 else "1970-01-01"
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def zone(seconds: float) -> str:
    """How far this machine's zone was from UTC then, such as ``UTC+02:00``."""
    return f"UTC{datetime.fromtimestamp(seconds).astimezone().isoformat()[-6:]}"


def figure(value: float) -> str:
    """A measured value, with four digits."""
    return f"{value:.4g}"


def share(part: float) -> str:
    """A part of 1 in percent."""
    return f"{100 * part:.2g} %" if part < 0.995 else f"{100 * part:.0f} %"


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number of things, such as ``1 file``, ``1,200 files``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def place(position: Position) -> str:
    """A position for readers."""
    return f"epoch {position.epoch:,}, batch {position.batch:,}, step {position.step:,}"


def median(values: Sequence[float]) -> float:
    """The median; NaN of none."""
    return statistics.median(values) if values else math.nan
