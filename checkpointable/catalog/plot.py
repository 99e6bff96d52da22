"""Plots a metric of checkpoints against the total number of batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from checkpointable._errors import MonitorError
from checkpointable.catalog.info import CheckpointInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def as_plot(infos: Sequence[CheckpointInfo], metric: str | None) -> Axes:
    """The plot that ``Checkpoints.plot`` shows; ``infos`` are sorted, newest last."""
    try:
        from matplotlib import pyplot  # an optional dependency, imported only where it is needed
    except ImportError as error:
        raise ImportError('plotting needs matplotlib: pip install "checkpointable[plot]"') from error
    if metric is None:
        metric = next((info.monitor for info in reversed(infos) if info.score is not None), None)
    lines: dict[str, list[tuple[int, float]]] = {}
    for info in infos:
        value = info.score if info.monitor == metric and info.score is not None else info.metrics.get(metric or "")
        if value is not None:
            lines.setdefault(info.run_id, []).append((info.batches, value))
    if metric is None or not lines:
        raise MonitorError(_nothing_to_plot(infos, metric))
    _, axes = pyplot.subplots()
    for run_id, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=run_id)
    axes.set(xlabel="batches", ylabel=metric)
    if len(lines) > 1:
        axes.legend(title="run")
    return axes


def _nothing_to_plot(infos: Sequence[CheckpointInfo], metric: str | None) -> str:
    logged = sorted({name for info in infos for name in info.metrics})
    missing = "no checkpoint has a score" if metric is None else f"no checkpoint has {metric!r}"
    advice = f"Choose one of {', '.join(map(repr, logged))}." if logged else "Log one with self.log first."
    return f"cannot plot: {missing}. {advice}"
