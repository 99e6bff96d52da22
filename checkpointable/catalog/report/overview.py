"""The table that compares the runs of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from checkpointable.catalog import words
from checkpointable.catalog.info import size_in_words
from checkpointable.catalog.report.attempts import attempts_of
from checkpointable.catalog.report.curve import bounds_of, curve_of, metric_names
from checkpointable.catalog.report.markup import Html, element, joined
from checkpointable.catalog.report.run import Run
from checkpointable.catalog.report.scale import Scale, scale_of
from checkpointable.catalog.report.sessions import counts
from checkpointable.catalog.report.sparkline import sparkline
from checkpointable.catalog.table import cut
from checkpointable.policy.history import MeasuredValue

_HEADER = ("Run", "Curve", "Best", "Epoch", "Step", "Sessions", "Kills", "Files", "Size", "Newest file")
_NUMBERS = set(_HEADER[2:9])
_MOST_NAME, _MOST_METRIC = 80, 32  # characters
_TO_THE_MINUTE = len("2026-01-02 03:04")


def overview(runs: Sequence[Run]) -> Html:
    """One line for each run, with its curve, its best score, and a link to its section."""
    lines = {run.run_id: _line(run) for run in runs}
    scales = {
        metric: _shared([line for name, line in lines.values() if name == metric]) for metric, _ in lines.values()
    }
    best = {metric: _best_of([run for run in runs if lines[run.run_id][0] == metric]) for metric in scales}
    head = element("tr", *(element("th", name, scope="col", class_=_class(name)) for name in _HEADER))
    rows = []
    for number, run in enumerate(runs, start=1):
        metric, line = lines[run.run_id]
        is_best = run is best[metric]
        rows.append(
            element(
                "tr", *_cells(run, number, metric, line, scales[metric], is_best), class_="is-best" if is_best else None
            )
        )
    table = element("table", element("thead", head), element("tbody", *rows))
    region = element("div", table, class_="wide", role="region", tabindex=0, aria_label="All runs")
    note = "Curves of the same metric are on one scale. The best run of each metric is marked."
    return joined([element("p", note, class_="muted"), region])


def _line(run: Run) -> tuple[str | None, Sequence[MeasuredValue]]:
    names = metric_names(run)
    return (names[0], curve_of(run, attempts_of(run), names[0]).line) if names else (None, ())


def _shared(lines: Sequence[Sequence[MeasuredValue]]) -> tuple[Scale, Scale] | None:
    """The axes that hold all of these lines."""
    bounds = bounds_of(it for line in lines for it in line)
    if bounds is None:
        return None
    last = max(it.position.batches for line in lines for it in line)
    return scale_of(0, max(last, 1)), scale_of(*bounds, margin=0.05)


def _best_of(runs: Sequence[Run]) -> Run | None:
    scores = {index: run.best.score for index, run in enumerate(runs) if run.best and run.best.score is not None}
    modes = {run.monitor[1] for run in runs}
    if len(scores) < 2 or len(modes) > 1:  # with two modes, neither is better
        return None
    choose = max if modes == {"max"} else min
    return runs[choose(scores, key=lambda index: scores[index])]


def _class(name: str) -> str | None:
    return "number" if name in _NUMBERS else None


def _cells(
    run: Run,
    number: int,
    metric: str | None,
    line: Sequence[MeasuredValue],
    scales: tuple[Scale, Scale] | None,
    is_best: bool,
) -> Iterator[Html]:
    kills, _, _ = counts(attempts := attempts_of(run))
    link = element("a", cut(run.name, _MOST_NAME), href=f"#run-{number}", title=run.name, class_="path")
    marked = element("span", "best", class_="badge best") if is_best else None
    yield element("th", link, " " if is_best else None, marked, scope="row")
    drawn = element("span", "no values", class_="muted")
    if scales is not None and metric is not None:
        drawn = sparkline(line, metric, along=scales[0], up=scales[1])
    yield element("td", drawn, element("div", cut(metric or "", _MOST_METRIC), title=metric, class_="muted"))
    cells = {
        "Best": "" if run.best is None or run.best.score is None else words.figure(run.best.score),
        "Epoch": f"{run.newest.epoch:,}",
        "Step": f"{run.newest.step:,}",
        "Sessions": f"{len(attempts):,}",
        "Kills": f"{kills:,}",
        "Files": f"{len(run.infos) + len(run.unreadable):,}",
        "Size": size_in_words(run.size_bytes),
        "Newest file": words.moment(max(info.created for info in run.infos))[:_TO_THE_MINUTE],
    }
    yield from (element("td", value, class_=_class(name)) for name, value in cells.items())
