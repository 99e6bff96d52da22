"""The values of one metric over a run: those of the line to the newest file, and those of branches that were left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.report.attempts import Attempt
from checkpointable.catalog.report.run import Run
from checkpointable.policy.history import MeasuredValue
from checkpointable.policy.lineage import Lineage

Values = Mapping[str, Mapping[int, MeasuredValue]]
"""The values of one metric by attempt, and in it by the batches done, in order."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One metric. ``left`` has each branch that was left, from the last value before it."""

    metric: str
    line: tuple[MeasuredValue, ...]
    left: tuple[tuple[MeasuredValue, ...], ...]
    values: Values

    def at(self, info: CheckpointInfo) -> MeasuredValue | None:
        """The value that was measured on the weights of a file."""
        if info.monitor == self.metric and info.score is not None:
            return MeasuredValue(info.at, info.score)
        behind = next((it for it in reversed(info.lineage.ancestors) if it.batches == info.batches), None)
        attempts = [info.lineage.attempt, *([] if behind is None else [behind.attempt])]
        found = (self.values.get(name, {}).get(info.batches) for name in attempts)
        return next((it for it in found if it is not None), None)

    @property
    def all_values(self) -> list[MeasuredValue]:
        """Those of all branches."""
        return [*self.line, *(it for branch in self.left for it in branch)]


def metric_names(run: Run) -> list[str]:
    """The metrics that were measured, the monitored one first, then in the order in which they were logged."""
    monitor, _ = run.monitor
    logged = dict.fromkeys(name for _, history in run.histories for point in history.points for name in point.metrics)
    scored = dict.fromkeys(info.monitor for info in run.infos if info.score is not None and info.monitor is not None)
    names = [*logged, *(name for name in scored if name not in logged)]
    return sorted(names, key=lambda name: name != monitor)


def curve_of(run: Run, attempts: Sequence[Attempt], metric: str) -> Curve:
    """The curve of one metric; without a value if it was never measured."""
    values = _values(run, metric)
    line, left = [], []
    begun = -1
    for attempt in attempts:
        own = [
            it for it in values.get(attempt.name, {}).values() if attempt.since < it.position.batches <= attempt.until
        ]
        if attempt.is_on_the_line:
            bound = math.inf if attempt.left_at is None else attempt.left_at
            line += [it for it in own if begun < it.position.batches <= bound]
            rest = [it for it in own if it.position.batches > bound]
            anchor = line[-1:]
            begun = attempt.ends if attempt.left_at is None else attempt.left_at
        else:
            rest = [it for it in own if it.position.batches > attempt.begins]
            anchor = _last_before(attempt, values)
        if rest:
            left.append((*anchor, *rest))
    return Curve(metric=metric, line=tuple(line), left=tuple(left), values=values)


def _last_before(attempt: Attempt, values: Values) -> list[MeasuredValue]:
    """The last value of what an attempt descends from."""
    older = attempt.parent
    while older is not None:
        before = [it for it in values.get(older.name, {}).values() if it.position.batches <= attempt.begins]
        if before:
            return before[-1:]
        older = older.parent
    return []


def _values(run: Run, metric: str) -> Values:
    """What histories and files tell. A value that a file only carries from an earlier position is none of its own."""
    found: dict[str, dict[int, MeasuredValue]] = {}
    for lineage, history in run.histories:
        for it in history.values_of(metric):
            batches = it.position.batches
            found.setdefault(_attempt_at(lineage, batches), {})[batches] = it
    for info in run.infos:
        if info.score is not None and info.monitor == metric:
            own = found.setdefault(_attempt_at(info.lineage, info.batches), {})
            own[info.batches] = MeasuredValue(info.at, info.score)
    return {name: dict(sorted(own.items())) for name, own in found.items()}


def _attempt_at(lineage: Lineage, batches: int) -> str:
    """Which attempt of a lineage has trained a batch."""
    return next((it.attempt for it in lineage.ancestors if batches <= it.batches), lineage.attempt)


def bounds_of(values: Iterable[MeasuredValue]) -> tuple[float, float] | None:
    """The lowest and the highest of the values that can be drawn; ``None`` if there is none."""
    drawable = [it.value for it in values if it.is_drawable]
    return (min(drawable), max(drawable)) if drawable else None
