"""The curve of a run as a picture: its values, every kept file, the sessions below it.

Positions across are in percent of the width, so that the picture fits any page with text of one size. Only lines are
stretched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from checkpointable.catalog import words
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.report.attempts import Attempt
from checkpointable.catalog.report.curve import Curve, bounds_of
from checkpointable.catalog.report.marks import file_mark, kill_mark, mark_at
from checkpointable.catalog.report.markup import Html, element, joined
from checkpointable.catalog.report.run import Run
from checkpointable.catalog.report.scale import Scale, scale_of
from checkpointable.catalog.report.sparkline import polylines
from checkpointable.catalog.table import cut
from checkpointable.policy.history import MeasuredValue

_HEIGHT = 240  # of the curve, in pixels
_FILES, _SESSIONS = _HEIGHT + 44, _HEIGHT + 66  # where these lanes are
_ALL = _SESSIONS + 14
_WIDE = 1000  # what lines are drawn in before they are stretched
_MOST_DOTS = 250
_MOST_DELETED = 400
_ABOVE = ("file left", "file", "damaged", "best")  # the later ones are drawn above the earlier ones


def chart(run: Run, attempts: Sequence[Attempt], curve: Curve) -> Html:
    """The picture of one metric of a run."""
    along = batches_scale(attempts)
    bounds = bounds_of(curve.all_values)
    up = None if bounds is None else scale_of(*bounds, margin=0.06)
    parts = [
        *_grid(up),
        *_batches(along),
        *_resumes(attempts, along),
        *([] if up is None else _curve(curve, along, up)),
        *_not_numbers(curve, along),
        *_files(run, curve, along, up),
        *_sessions(attempts, along),
        *_kills(attempts, curve, along, up),
    ]
    picture = element("svg", *parts, class_="canvas", height=_ALL, role="img", aria_label=_described(run, curve))
    return element("div", picture, class_="plot")


def batches_scale(attempts: Sequence[Attempt]) -> Scale:
    """The axis of the batches, from the first to the last of the run."""
    return scale_of(0, max(1, *(it.ends for it in attempts)))


def _described(run: Run, curve: Curve) -> str:
    bounds, best = bounds_of(curve.line), run.best
    kept = words.counted(len(run.infos), "kept file")
    if bounds is None:
        return f"No values of {curve.metric} can be drawn. Below: {kept} by position."
    found = f" The best file has {words.figure(best.score)}." if best and best.score is not None else ""
    return (
        f"{curve.metric} over batches: {words.counted(len(curve.line), 'value')} from"
        f" {words.figure(curve.line[0].value)} to {words.figure(curve.line[-1].value)}, between"
        f" {words.figure(bounds[0])} and {words.figure(bounds[1])}.{found} Below: {kept} by position."
    )


def _grid(up: Scale | None) -> Iterator[Html]:
    yield element("line", x1=0, x2="100%", y1=_HEIGHT, y2=_HEIGHT, class_="axis")
    if up is not None:
        for value, label in up.ticks():
            at = round(_HEIGHT * (1 - up.at(value)), 1)
            yield element("line", x1=0, x2="100%", y1=at, y2=at, class_="grid")
            yield element("text", label, x=-8, y=at + 4, class_="tick end")


def _batches(along: Scale) -> Iterator[Html]:
    for value, label in along.ticks(whole=True):
        yield element(
            "line", x1=along.percent(value), x2=along.percent(value), y1=_HEIGHT, y2=_HEIGHT + 5, class_="axis"
        )
        yield element("text", label, x=along.percent(value), y=_HEIGHT + 18, class_="tick middle")


def _resumes(attempts: Sequence[Attempt], along: Scale) -> Iterator[Html]:
    for attempt in attempts:
        if attempt.resume is not None and attempt.is_on_the_line:
            at, kind = along.percent(attempt.begins), attempt.resume.replace(" ", "-")
            title = element("title", f"session {attempt.number} resumed here: {attempt.resume}")
            yield element("line", title, x1=at, x2=at, y1=0, y2=_SESSIONS + 6, class_=f"resume {kind}")


def _curve(curve: Curve, along: Scale, up: Scale) -> Iterator[Html]:
    lines = [
        element("polyline", points=points, class_=kind)
        for kind, values in [*(("line left", branch) for branch in curve.left), ("line", curve.line)]
        for points in polylines(values, along, up, _WIDE, _HEIGHT)
    ]
    yield element(
        "svg", *lines, viewBox=f"0 0 {_WIDE} {_HEIGHT}", preserveAspectRatio="none", width="100%", height=_HEIGHT
    )
    if len(curve.all_values) <= _MOST_DOTS:
        for kind, values in [*(("dot left", branch) for branch in curve.left), ("dot", curve.line)]:
            for it in values:
                if it.is_drawable:
                    at, title = round(_HEIGHT * (1 - up.at(it.value)), 1), _title(curve.metric, it)
                    yield element("circle", title, cx=along.percent(it.position.batches), cy=at, r=2, class_=kind)


def _title(metric: str, it: MeasuredValue) -> Html:
    return element("title", f"{metric} = {words.figure(it.value)}\n{words.place(it.position)}")


def _not_numbers(curve: Curve, along: Scale) -> Iterator[Html]:
    for it in curve.all_values:
        if not it.is_drawable:
            at = along.percent(it.position.batches)
            yield element("text", _title(curve.metric, it), words.figure(it.value), x=at, y=11, class_="odd middle")


def _files(run: Run, curve: Curve, along: Scale, up: Scale | None) -> Iterator[Html]:
    """The kept files: all in their lane, and those with a value on the curve as well."""
    yield element("text", "files", x=-8, y=_FILES + 4, class_="tick end")
    here = {info.path.replace("\\", "/").rpartition("/")[2] for info in run.infos}
    saves = {(it.name, it.position.batches): it for _, history in run.histories for it in history.saves}
    deleted = [it for it in saves.values() if it.name not in here][-_MOST_DELETED:]
    for save in deleted:
        at = along.percent(save.position.batches)
        title = element("title", f"{save.name}\ndeleted since\n{words.place(save.position)}")
        yield element("line", title, x1=at, x2=at, y1=_FILES - 3, y2=_FILES + 3, class_="deleted")
    best, last = run.best, run.last
    left = _left(run)
    kinds = {info.path: _kind(run, info, is_best=info is best, is_left=info.path in left) for info in run.infos}
    for info in sorted(run.infos, key=lambda info: _ABOVE.index(kinds[info.path])):
        kind = kinds[info.path]
        role = ", ".join([info.kind, *(["the best"] if info is best else []), *(["the last"] if info is last else [])])
        measured = curve.at(info)
        lines = [_name(info), role, words.place(info.at), *_value(curve, measured), *_damage(run, info)]
        title = element("title", "\n".join(lines))
        yield file_mark(kind, title, along.percent(info.batches), _FILES)
        if measured is not None and measured.is_drawable and up is not None:
            yield file_mark(kind, title, along.percent(info.batches), round(_HEIGHT * (1 - up.at(measured.value)), 1))


def _left(run: Run) -> set[str]:
    """The files of branches that were left."""
    lineage = run.newest.lineage
    return {info.path for info in run.infos if not lineage.includes(info.lineage.attempt, info.batches)}


def _kind(run: Run, info: CheckpointInfo, *, is_best: bool, is_left: bool) -> str:
    if info.path in run.problems:
        return "damaged"
    return "best" if is_best else "file left" if is_left else "file"


def _name(info: CheckpointInfo) -> str:
    return cut(info.path.replace("\\", "/").rpartition("/")[2], 80)


def _value(curve: Curve, measured: MeasuredValue | None) -> list[str]:
    return [] if measured is None else [f"{curve.metric} = {words.figure(measured.value)}"]


def _damage(run: Run, info: CheckpointInfo) -> list[str]:
    return [f"damaged: {run.problems[info.path]}"] if info.path in run.problems else []


def _sessions(attempts: Sequence[Attempt], along: Scale) -> Iterator[Html]:
    """The sessions of the line to the newest file, one after the other."""
    yield element("text", "sessions", x=-8, y=_SESSIONS + 4, class_="tick end")
    for place, attempt in enumerate(it for it in attempts if it.is_on_the_line):
        ends = attempt.ends if attempt.left_at is None else attempt.left_at
        width = f"{100 * max(along.at(ends) - along.at(attempt.begins), 0.004):.2f}%"
        title = element("title", f"session {attempt.number}\nfrom batch {attempt.begins:,} to batch {ends:,}")
        yield element(
            "rect",
            title,
            x=along.percent(attempt.begins),
            width=width,
            y=_SESSIONS - 4,
            height=8,
            class_="session odd-one" if place % 2 else "session",
        )


def _kills(attempts: Sequence[Attempt], curve: Curve, along: Scale, up: Scale | None) -> Iterator[Html]:
    """A mark for each kill: below the curve, or at the end of the branch that was left by it."""
    for attempt in attempts:
        if attempt.fate == "killed":
            told = f"session {attempt.number} was killed, or could not save, after batch {attempt.ends:,}"
            own = list(curve.values.get(attempt.name, {}).values())
            is_left = not attempt.is_on_the_line or (attempt.left_at is not None and attempt.left_at < attempt.ends)
            at = float(_SESSIONS)
            if is_left and up is not None and own and own[-1].is_drawable:
                at = round(_HEIGHT * (1 - up.at(own[-1].value)), 1)
            yield mark_at(along.percent(attempt.ends), at, kill_mark(element("title", told)))


def legend(run: Run, attempts: Sequence[Attempt], curve: Curve) -> Html:
    """What the marks of the picture mean: those that are in it."""
    best = run.best
    there = {
        "file": ("a kept file", any(info is not best and info.path not in run.problems for info in run.infos)),
        "best": ("the best file", best is not None),
        "damaged": ("a damaged file", bool(run.problems)),
    }
    marks = [(file_mark(kind, None, "8", 8), meaning) for kind, (meaning, is_there) in there.items() if is_there]
    if any(it.fate == "killed" for it in attempts):
        marks.append((mark_at("8", 8, kill_mark(None)), "a kill"))
    for resume in dict.fromkeys(it.resume for it in attempts if it.is_on_the_line and it.resume is not None):
        kind = resume.replace(" ", "-")
        marks.append((element("line", x1=8, x2=8, y1=0, y2=16, class_=f"resume {kind}"), f"a resume, {resume}"))
    if curve.left:
        marks.append((element("line", x1=0, x2=16, y1=8, y2=8, class_="line left"), "a branch that was left"))
    items = [
        element("li", element("svg", mark, width=16, height=16, aria_hidden="true"), " ", meaning)
        for mark, meaning in marks
    ]
    return element("ul", joined(items), class_="legend")
