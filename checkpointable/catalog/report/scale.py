"""An axis: where a value lies on it, and the round numbers that are written beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from checkpointable.catalog.words import figure

_ENOUGH = 1e-9  # of a value: the shortest axis around it, so that its ticks differ
_SMALLEST = 1e-300  # what is below has too few digits to be divided


@dataclass(frozen=True)
class Scale:
    """An axis from ``low`` to ``high``, which differ."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where a value lies, from 0 at ``low`` to 1 at ``high``."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def percent(self, value: float) -> str:
        """The same in percent of the length, for an attribute."""
        return f"{100 * self.at(value):.2f}".rstrip("0").rstrip(".") + "%"

    def ticks(self, most: int = 5, *, whole: bool = False) -> list[tuple[float, str]]:
        """Round numbers on the axis, with their labels; whole ones on request.

        The steps are 1, 2 or 5 times a power of ten, as in P. Heckbert, "Nice numbers for graph labels", Graphics Gems
        (1990).
        """
        step = _round_step((self.high - self.low) / most)
        step = max(step, 1.0) if whole else step
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        values = [number * step for number in range(first, min(last, first + 2 * most) + 1)]
        return [(value, _label(value, step)) for value in values]


def scale_of(low: float, high: float, *, margin: float = 0.0) -> Scale:
    """An axis for values from ``low`` to ``high``, and a part ``margin`` more on both sides."""
    least = max(max(abs(low), abs(high)) * _ENOUGH, _SMALLEST)
    if high - low <= least:
        around = abs(low) * 0.1 if abs(low) > _SMALLEST / _ENOUGH else 1.0
        return Scale(low - around, high + around)
    return Scale(low - margin * (high - low), high + margin * (high - low))


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _label(value: float, step: float) -> str:
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return figure(value)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value + 0.0:,.{digits}f}" if digits <= 6 else figure(value)
