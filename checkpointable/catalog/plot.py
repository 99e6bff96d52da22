"""Draws a metric of runs against the number of batches, in the colours of the user's style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from checkpointable.catalog.curves import Curve, curves
from checkpointable.catalog.info import CheckpointInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED_RESUMES = 8  # of more, what ended the session before is not written


def as_plot(infos: Sequence[CheckpointInfo], metric: str | None) -> Axes:
    """The plot that ``Checkpoints.plot`` shows; ``infos`` are sorted, newest last."""
    try:
        from matplotlib import pyplot  # an optional dependency, imported only where it is needed
    except ImportError as error:
        raise ImportError('plotting needs matplotlib: pip install "checkpointable[plot]"') from error
    name, found = curves(infos, metric)
    _, axes = pyplot.subplots()
    ink = pyplot.rcParams["text.color"]
    is_named = sum(len(curve.resumes) for curve in found) <= _NAMED_RESUMES
    for curve in found:
        label = curve.run_id if len(found) > 1 else None
        (line,) = axes.plot(*zip(*curve.points, strict=True), marker=".", label=label)
        _draw_files(axes, curve, line.get_color(), ink)
        for batches, ended in curve.resumes:
            mark = axes.axvline(
                batches, color=line.get_color() if label else ink, alpha=0.6, linestyle=":", gid="resume"
            )
            if is_named:
                _write_at(axes, batches, ended)
            else:
                mark.set_label("resumed")
    axes.set(xlabel="batches", ylabel=name)
    _explain(axes, [curve.run_id for curve in found])
    return axes


def _draw_files(axes: Axes, curve: Curve, color: Any, ink: Any) -> None:
    measured = [(batches, value) for batches, value in curve.kept if value is not None]
    others = [batches for batches, value in curve.kept if value is None]
    plain = {"color": color, "linestyle": "none"}
    if measured:
        axes.plot(*zip(*measured, strict=True), marker="o", gid="kept", label="file", **plain)
    if others:  # on the axis: nothing was measured there
        low = axes.get_xaxis_transform()
        axes.plot(
            others, [0] * len(others), marker=2, markersize=8, markeredgewidth=2, transform=low, clip_on=False,
            gid="kept elsewhere", label="file, not measured there", **plain,
        )  # fmt: skip
    if curve.best is not None:
        batches, value = curve.best
        axes.plot(
            [batches], [value], marker="o", markersize=13, markerfacecolor="none", markeredgecolor=ink, color=ink,
            linestyle="none", gid="best", label="best file",
        )  # fmt: skip


def _write_at(axes: Axes, batches: int, ended: str) -> None:
    axes.annotate(
        f"{ended:.40}, resumed", (batches, 1), xycoords=axes.get_xaxis_transform(), xytext=(3, -4),
        textcoords="offset points", rotation=90, va="top", fontsize="small",
    )  # fmt: skip


def _explain(axes: Axes, run_ids: Sequence[str]) -> None:
    """Explain each kind of mark once, after the runs. The line of one run alone is explained by the axis."""
    handles, labels = axes.get_legend_handles_labels()
    kinds = dict(zip(labels, handles, strict=True))
    shown = sorted(kinds, key=lambda label: label not in run_ids)
    axes.legend([kinds[label] for label in shown], shown)
