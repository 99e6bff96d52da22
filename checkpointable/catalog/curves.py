"""The curve of each run: what was measured where, where it was resumed, and which of its files are kept.

The newest file of a run tells all of it. Where that has no history, each file tells what was measured at its position.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from checkpointable._errors import CheckpointableWarning, CheckpointFileError, MonitorError
from checkpointable.catalog import select
from checkpointable.catalog.history import newest_history
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.policy.history import History


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One metric of one run, by the number of batches done in all epochs together.

    Attributes:
        run_id: The run.
        points: Batches and value of each measurement, in order.
        resumes: Batches at which the run resumed, and what had ended it.
        kept: Batches and value of each file; ``None`` where the metric was not measured at its position.
        best: The best of them by the metric; ``None`` if there is no score of it.
    """

    run_id: str
    points: tuple[tuple[int, float], ...]
    resumes: tuple[tuple[int, str], ...] = ()
    kept: tuple[tuple[int, float | None], ...] = ()
    best: tuple[int, float] | None = None


def curves(infos: Sequence[CheckpointInfo], metric: str | None = None) -> tuple[str, list[Curve]]:
    """The name of the metric, and the curve of each run that has measured it. Their files are read, but no tensors.

    Args:
        infos: The checkpoints, newest last.
        metric: Its name; ``None`` for the monitor of the newest file that has a score, else of the newest history.

    Raises:
        MonitorError: If no run has measured it. The message names what was measured.
    """
    runs: dict[str, list[CheckpointInfo]] = {}
    for info in infos:
        runs.setdefault(info.run_id, []).append(info)
    histories = {run_id: _history(run) for run_id, run in runs.items()}
    if metric is None:
        scored = (info.monitor for info in reversed(infos) if info.score is not None)
        told = (it.monitor for it in reversed(histories.values()) if it is not None)
        metric = next((it for it in (*scored, *told) if it is not None), None)
    found = [_curve(run_id, run, histories[run_id], metric) for run_id, run in runs.items() if metric is not None]
    found = [curve for curve in found if curve.points]
    if metric is None or not found:
        raise MonitorError(_nothing_to_plot(infos, histories, metric))
    return metric, found


def _curve(run_id: str, run: Sequence[CheckpointInfo], history: History | None, metric: str) -> Curve:
    own = {info.path: _measured(info, metric) for info in run}
    if history is None:
        points = tuple((info.batches, value) for info in run if (value := own[info.path]) is not None)
    else:
        points = tuple((it.position.batches, it.value) for it in history.values_of(metric))
    best = next(iter(select.by_score([info for info in run if info.monitor == metric], metric)), None)
    return Curve(
        run_id=run_id,
        points=points,
        resumes=() if history is None else _resumes(history),
        kept=tuple((info.batches, own[info.path]) for info in run),
        best=None if best is None or best.score is None else (best.batches, best.score),
    )


def _measured(info: CheckpointInfo, metric: str) -> float | None:
    """The value at the position of a file."""
    value = info.score if info.monitor == metric and info.score is not None else info.metrics.get(metric)
    return None if value is None or math.isnan(value) else value


def _resumes(history: History) -> tuple[tuple[int, str], ...]:
    pairs = zip(history.sessions, history.sessions[1:], strict=False)
    return tuple((later.begins.batches, earlier.ended or "killed") for earlier, later in pairs)


def _history(run: Sequence[CheckpointInfo]) -> History | None:
    """What the newest file of a run tells that has a history; a warning for each newer one that is damaged."""
    found = newest_history(run)
    for path, error in found.problems.items():
        if isinstance(error, CheckpointFileError):  # else the run has deleted it since
            warnings.warn(f"passed over {path}: {error} An older file is read.", CheckpointableWarning, stacklevel=6)
    return found.history


def _nothing_to_plot(
    infos: Iterable[CheckpointInfo], histories: Mapping[str, History | None], metric: str | None
) -> str:
    measured = {name for info in infos for name in (*info.metrics, *([info.monitor] if info.monitor else []))}
    measured |= {name for it in histories.values() if it is not None for point in it.points for name in point.metrics}
    missing = "no checkpoint has a score" if metric is None else f"no checkpoint has {metric!r}"
    advice = f"Choose one of {', '.join(map(repr, sorted(measured)))}." if measured else "Log one with self.log first."
    return f"cannot plot: {missing}. {advice}"
