"""Shows checkpoints as text, as HTML and as a plot."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from checkpointable._errors import MonitorError
from checkpointable.catalog.info import CheckpointInfo, size_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEADER = ("kind", "epoch", "batch", "step", "score", "size", "created", "name")
_NUMBERS = {"epoch", "batch", "step", "size"}


def as_text(infos: Sequence[CheckpointInfo], root: str) -> str:
    """A table in plain text, one line for each checkpoint; names are relative to ``root``."""
    rows = [_HEADER, *(_row(info, root) for info in infos)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(_HEADER, row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def as_html(infos: Sequence[CheckpointInfo], root: str) -> str:
    """The same table as HTML, with all text escaped."""
    head = _html_row("th", _HEADER)
    body = "".join(_html_row("td", _row(info, root)) for info in infos)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


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


def _row(info: CheckpointInfo, root: str) -> tuple[str, ...]:
    return (
        _kind(info),
        str(info.epoch),
        str(info.batch),
        str(info.step),
        "" if info.score is None else f"{info.monitor}={info.score:.4g}",
        size_in_words(info.size),
        datetime.fromtimestamp(info.created).strftime("%Y-%m-%d %H:%M:%S"),
        os.path.relpath(info.path, root) if os.path.isdir(root) else os.path.basename(info.path),
    )


def _kind(info: CheckpointInfo) -> str:
    held = {
        "averaged": info.weights == "averaged",
        "weights only": info.weights_only,
        "trainable only": info.frozen_checksum is not None,
    }
    return ", ".join([info.kind, *(words for words, is_so in held.items() if is_so)])


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
