"""The whole page of a report. It loads nothing, runs no script, and forbids the browser both."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from checkpointable._version import __version__
from checkpointable.catalog import words
from checkpointable.catalog.report.checks import Checks
from checkpointable.catalog.report.files_table import Row, table
from checkpointable.catalog.report.markup import Html, element, joined
from checkpointable.catalog.report.overview import overview
from checkpointable.catalog.report.run import Run, shown_name
from checkpointable.catalog.report.run_section import run_section
from checkpointable.catalog.report.style import PAGE
from checkpointable.catalog.scan import Unreadable

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(
    runs: Sequence[Run], lost: Sequence[Unreadable], *, roots: Sequence[str], checks: Checks, notes: Sequence[str]
) -> str:
    """The page as text.

    Args:
        runs: The runs, the newest first.
        lost: Damaged files that can be of several runs.
        roots: The places that were looked at.
        checks: What was checked.
        notes: What else is to be said, such as what the page lacks.
    """
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs" if runs else "damaged files"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content=f"checkpointable {__version__}"),
        element("title", f"{title} · checkpoints"),
        element("style", Html(PAGE)),
    )
    body = element("body", *_body(runs, lost, roots=roots, checks=checks, notes=notes, title=title))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _body(
    runs: Sequence[Run],
    lost: Sequence[Unreadable],
    *,
    roots: Sequence[str],
    checks: Checks,
    notes: Sequence[str],
    title: str,
) -> Iterator[Html]:
    now = time.time()
    several = len(runs) != 1
    places = joined([element("code", root) for root in roots], between=", ")
    made = f"As of {words.moment(now)} ({words.zone(now)}, as all times here)."
    yield element(
        "header",
        element("p", "Checkpoints of", class_="kicker"),
        element("h1", title if several else element("span", title, class_="path")),
        element("p", places, ". ", made, class_="muted"),
    )
    sections = [
        run_section(run, number=number if several else None, checked=checks.in_words())
        for number, run in enumerate(runs, start=1)
    ]
    if several and runs:
        sections.insert(0, element("section", element("h2", "All runs"), overview(runs)))
    yield element("main", *sections, *_lost(lost, roots))
    made_by = f"Made by checkpointable {__version__} from the files alone."
    yield element("footer", *(element("p", note) for note in (*notes, made_by)))


def _lost(lost: Sequence[Unreadable], roots: Sequence[str]) -> Iterator[Html]:
    if lost:
        rows = [Row(name=shown_name(it.path, roots), problem=it.problem, check="damaged", cells=None) for it in lost]
        region = element("div", table(rows), class_="wide", role="region", tabindex=0, aria_label="Damaged files")
        note = element("p", "These files do not tell which run they belong to.", class_="muted")
        yield element("section", element("h2", "Damaged files"), note, region)
