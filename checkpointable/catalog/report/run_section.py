"""The part of a report that is about one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from checkpointable.catalog import words
from checkpointable.catalog.info import CheckpointInfo, size_in_words
from checkpointable.catalog.report.attempts import Attempt, attempts_of
from checkpointable.catalog.report.chart import chart, legend
from checkpointable.catalog.report.cost import cost_section, saves_of, share_of_training
from checkpointable.catalog.report.curve import Curve, bounds_of, curve_of, metric_names
from checkpointable.catalog.report.files_table import Row, cells_of, table
from checkpointable.catalog.report.markup import Html, element
from checkpointable.catalog.report.run import Run, shown_name
from checkpointable.catalog.report.sessions import counts, sessions_section
from checkpointable.catalog.report.sparkline import sparkline
from checkpointable.catalog.table import cut

_MOST_METRICS = 40
_MOST_NAME = 80  # characters


def run_section(run: Run, *, number: int | None, checked: str) -> Html:
    """All of one run: facts, curve, sessions, files, cost.

    Args:
        run: The run.
        number: Its number in the report, from 1 on, which its anchor has; ``None`` if it is the only one, and the page
            has its name.
        checked: What was checked, in one sentence.
    """
    attempts = attempts_of(run)
    names = metric_names(run)
    metric = names[0] if names else run.monitor[0]
    curve = None if metric is None else curve_of(run, attempts, metric)
    parts = [
        None if number is None else element("h2", cut(run.name, _MOST_NAME), class_="path"),
        element("p", "Run ", element("code", run.run_id), ", in ", element("code", run.folder), class_="muted"),
        _facts(run, attempts),
        element("h3", "Curve"),
        *_curve(run, attempts, curve),
        *_others(run, attempts, names[1:]),
        element("h3", "Sessions"),
        sessions_section(attempts),
        element("h3", "Files"),
        *_files(run, attempts, checked),
        element("h3", "Cost of saving"),
        cost_section(run, attempts),
    ]
    return element("section", *parts, id=None if number is None else f"run-{number}", aria_label=f"Run {run.name}")


def _facts(run: Run, attempts: Sequence[Attempt]) -> Html:
    """The answers to the first questions, in a row."""
    facts = [*_best(run), *_last(run), _sessions(attempts), _kept(run), *_cost(run, attempts)]
    tiles = [
        element("div", element("dt", name), element("dd", element("strong", value), *_below(below)))
        for name, value, below in facts
    ]
    return element("dl", *tiles, class_="facts")


def _below(lines: Sequence[str]) -> list[Html]:
    return [element("div", line, class_="muted") for line in lines if line]


def _best(run: Run) -> Iterator[tuple[str, str, list[str]]]:
    monitor, mode = run.monitor
    if run.best is not None and run.best.score is not None:
        way = {"min": "lowest ", "max": "highest "}.get(mode or "", "")
        yield (
            "Best",
            words.figure(run.best.score),
            [f"{way}{cut(run.best.monitor or '', _MOST_NAME)}", words.place(run.best.at)],
        )
    elif monitor is not None:
        yield "Best", "none", [f"no intact file has a score of {cut(monitor, _MOST_NAME)}"]


def _last(run: Run) -> Iterator[tuple[str, str, list[str]]]:
    last = run.last
    if last is None:
        yield "Last", "none", ["no file that is not damaged can be resumed from"]
        return
    at = f"epoch {last.epoch:,}, batch {last.batch:,}"
    resumes = {"exact": "resumes exactly", "not recorded": ""}.get(_level(last), f"resumes {_level(last)}")
    yield "Last", at, [f"step {last.step:,}, {words.moment(last.created)}", resumes]


def _sessions(attempts: Sequence[Attempt]) -> tuple[str, str, list[str]]:
    kills, resumed, confirmed = counts(attempts)
    differing = sum(it.resume == "differs" for it in resumed)
    lines = [words.counted(kills, "kill")]
    if resumed:
        different = f", {differing} differing" if differing else ""
        lines.append(f"{words.counted(len(resumed), 'resume')}, {confirmed} confirmed{different}")
    return "Sessions", f"{len(attempts):,}", lines


def _kept(run: Run) -> tuple[str, str, list[str]]:
    damaged = len(run.problems) + len(run.unreadable)
    files = len(run.infos) + len(run.unreadable)
    checked = (
        "all intact" if run.checked and not damaged else "no damage known" if not damaged else f"{damaged} damaged"
    )
    return "Files", f"{files:,}", [size_in_words(run.size_bytes), checked]


def _cost(run: Run, attempts: Sequence[Attempt]) -> Iterator[tuple[str, str, list[str]]]:
    saves = saves_of(run)
    share = share_of_training(run, saves, attempts)
    if share is not None:
        yield "Saving", words.share(share), ["of the time of training", words.counted(len(saves), "save")]


def _curve(run: Run, attempts: Sequence[Attempt], curve: Curve | None) -> Iterator[Html]:
    if curve is None:
        yield element("p", "No file of this run tells of a metric that was measured.", class_="muted")
        curve = Curve(metric="a metric", line=(), left=(), values={})
    else:
        yield element("p", element("strong", curve.metric, class_="path"), " by the batches done in all epochs")
    yield element("figure", chart(run, attempts, curve), legend(run, attempts, curve))
    if curve.all_values:
        rows = [_figures(it.position.epoch, it.position.batches, it.position.step, it.value) for it in curve.line]
        head = element("tr", *(element("th", name, scope="col") for name in ("Epoch", "Batches", "Step", "Value")))
        figures = element("table", element("thead", head), element("tbody", *rows), class_="figures")
        label = f"Figures of {curve.metric}"
        region = element("div", figures, class_="wide tall", role="region", tabindex=0, aria_label=label)
        yield element("details", element("summary", f"{words.counted(len(rows), 'figure')} as a table"), region)
    told = run.history
    if told is not None and told.points_left_out:
        text = f"{words.counted(told.points_left_out, 'measurement')} of so long a run are thinned out."
        yield element("p", text, class_="muted")
    if told is not None and told.metrics_left_out:
        text = f"{words.counted(told.metrics_left_out, 'metric')} had no room in the history. Your logger has all."
        yield element("p", text, class_="muted")


def _figures(epoch: int, batches: int, step: int, value: float) -> Html:
    cells = (f"{epoch:,}", f"{batches:,}", f"{step:,}", f"{value:.6g}")
    return element("tr", *(element("td", cell) for cell in cells))


def _others(run: Run, attempts: Sequence[Attempt], names: Sequence[str]) -> Iterator[Html]:
    """The other metrics, each as a small curve."""
    rows = []
    for name in names[:_MOST_METRICS]:
        line = curve_of(run, attempts, name).line
        bounds = bounds_of(line)
        cells = ["", "", ""] if bounds is None else [words.figure(it) for it in (*bounds, line[-1].value)]
        rows.append(
            element(
                "tr",
                element("th", element("span", name, class_="path"), scope="row"),
                element("td", sparkline(line, name)),
                *(element("td", cell, class_="number") for cell in cells),
            )
        )
    if not rows:
        return
    heads = [("Metric", None), ("Curve", None), ("Lowest", "number"), ("Highest", "number"), ("Last", "number")]
    head = element("tr", *(element("th", name, scope="col", class_=kind) for name, kind in heads))
    region = element(
        "div",
        element("table", element("thead", head), element("tbody", *rows)),
        class_="wide",
        role="region",
        tabindex=0,
        aria_label="Other metrics",
    )
    shown = words.counted(len(names), "other metric")
    more = f", {_MOST_METRICS} shown" if len(names) > _MOST_METRICS else ""
    yield element("details", element("summary", shown + more), region)


def _files(run: Run, attempts: Sequence[Attempt], checked: str) -> Iterator[Html]:
    numbers = {info.path: f"{it.number}" for it in attempts for info in it.infos}
    told = dict.fromkeys(info.exactness for info in run.infos if info.exactness is not None)
    notes = {exactness: place for place, exactness in enumerate(told, start=1) if exactness != "exact"}
    best, last, folder = run.best, run.last, [run.folder]
    rows = [
        Row(name=shown_name(it.path, [run.folder]), problem=it.problem, check="damaged")
        for it in reversed(run.unreadable)
    ]
    for info in reversed(run.infos):
        roles = (*(["best"] if info is best else []), *(["last"] if info is last else []))
        problem = run.problems.get(info.path)
        intact = "intact" if info.path in run.checked else "not checked"
        rows.append(
            Row(
                name=shown_name(info.path, folder),
                roles=roles,
                problem=problem,
                check=intact if problem is None else "damaged",
                cells={**cells_of(info), "Session": numbers.get(info.path, ""), "Resumes": _level(info)},
                note=notes.get(info.exactness or ""),
                copies=run.copies.get(info.path, ()),
            )
        )
    yield element("p", checked, class_="muted")
    yield element("div", table(rows), class_="wide tall", role="region", tabindex=0, aria_label="Files")
    if notes:
        items = [element("li", exactness, value=place) for exactness, place in notes.items()]
        yield element("ol", *items, class_="notes")


def _level(info: CheckpointInfo) -> str:
    if info.weights_only:
        return "no, weights only"
    if info.exactness is None:
        return "not recorded"
    if info.exactness == "exact":
        return "exact"
    return "as asked for" if info.exactness.startswith("exact") else "not exact"
