"""A curve the size of a word."""

from __future__ import annotations

from collections.abc import Sequence

from checkpointable.catalog.report.curve import bounds_of
from checkpointable.catalog.report.markup import Html, element
from checkpointable.catalog.report.scale import Scale, scale_of
from checkpointable.catalog.words import figure
from checkpointable.policy.history import MeasuredValue

_WIDTH, _HEIGHT = 200, 40  # of its own coordinates; the page gives it its size


def sparkline(
    values: Sequence[MeasuredValue], name: str, *, along: Scale | None = None, up: Scale | None = None
) -> Html:
    """A curve without axes, to read beside text.

    Args:
        values: In the order of the positions.
        name: Of the metric.
        along: The axis of the batches, where several curves share one.
        up: The axis of the values, likewise.
    """
    bounds = bounds_of(values)
    if bounds is None:
        return element("span", "no values", class_="muted")
    along = along or scale_of(values[0].position.batches, values[-1].position.batches)
    up = up or scale_of(*bounds, margin=0.05)
    lines = [
        element("polyline", points=points, class_="line") for points in polylines(values, along, up, _WIDTH, _HEIGHT)
    ]
    label = f"{name}: from {figure(values[0].value)} to {figure(values[-1].value)}, lowest {figure(bounds[0])}"
    return element(
        "svg",
        *lines,
        class_="spark",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def polylines(values: Sequence[MeasuredValue], along: Scale, up: Scale, width: float, height: float) -> list[str]:
    """The coordinates of lines through values. A value that is not a number, or is infinite, interrupts the line."""
    lines: list[list[str]] = [[]]
    for it in values:
        if it.is_drawable:
            across, down = width * along.at(it.position.batches), height * (1 - up.at(it.value))
            lines[-1].append(f"{across:.1f},{down:.1f}")
        elif lines[-1]:
            lines.append([])
    # a line to itself, so that a value between two interruptions is seen
    return [" ".join(line if len(line) > 1 else line * 2) for line in lines if line]
