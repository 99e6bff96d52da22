"""The table of the files of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from checkpointable.catalog import words
from checkpointable.catalog.info import CheckpointInfo, size_in_words
from checkpointable.catalog.report.markup import Html, element, joined
from checkpointable.catalog.table import cut

_NUMBERS = {"Epoch", "Batch", "Step", "Score", "Size", "Session"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file, in words.

    Attributes:
        name: Of the file.
        roles: ``best``, ``last``: what it is in its run.
        problem: What is wrong with it, if it is damaged.
        check: ``intact``, ``damaged``, or ``not checked``; ``None`` leaves the column out, if that is so for all rows.
        cells: All other columns, by their headings.
        note: The number of the note that says how exactly it resumes.
        copies: Where else it is.
    """

    name: str
    roles: tuple[str, ...] = ()
    problem: str | None = None
    check: str | None = None
    cells: Mapping[str, str] | None = None
    note: int | None = None
    copies: Sequence[str] = ()


def cells_of(info: CheckpointInfo) -> dict[str, str]:
    """What a file states, by the headings of the table."""
    return {
        "Kind": kind_in_words(info),
        "Epoch": f"{info.epoch:,}",
        "Batch": f"{info.batch:,}",
        "Step": f"{info.step:,}",
        "Score": "" if info.score is None else f"{cut(info.monitor or '', 40)} {words.figure(info.score)}",
        "Size": size_in_words(info.size),
        "Saved": words.moment(info.created),
    }


def kind_in_words(info: CheckpointInfo) -> str:
    """Why a file was saved, and what it holds if that is not everything."""
    held = {
        "averaged": info.weights == "averaged",
        "weights only": info.weights_only,
        "trainable only": info.frozen_checksum is not None,
        "kept for ever": "kept_epoch" in info.reasons,
    }
    return ", ".join([info.kind, *(word for word, is_so in held.items() if is_so)])


def table(rows: Sequence[Row]) -> Html:
    """The table, one line for each file."""
    headings = list(dict.fromkeys(name for row in rows for name in row.cells or {}))
    has_checks = any(row.check is not None for row in rows)
    names = ["File", *headings, *(["Bytes"] if has_checks else [])]
    head = element("tr", *(element("th", name, scope="col", class_=_class(name)) for name in names))
    body = [element("tr", *_cells(row, headings, has_checks), class_=_kind(row)) for row in rows]
    return element("table", element("thead", head), element("tbody", *body), class_="files")


def _kind(row: Row) -> str | None:
    return "is-damaged" if row.problem is not None else "is-best" if "best" in row.roles else None


def _class(name: str) -> str | None:
    return "number" if name in _NUMBERS else None


def _cells(row: Row, headings: Sequence[str], has_checks: bool) -> Iterator[Html]:
    roles = [joined([" ", element("span", role, class_=f"badge {role}")]) for role in row.roles]
    copies = [element("div", f"also at {copy}", class_="muted") for copy in row.copies]
    yield element("th", element("span", row.name, class_="path"), *roles, *copies, scope="row")
    if row.cells is None:
        yield element("td", row.problem, colspan=len(headings), class_="problem")
    else:
        for name in headings:
            value = row.cells.get(name, "")
            note = row.note if name == "Resumes" else None
            yield element("td", value, None if note is None else element("sup", str(note)), class_=_class(name))
    if has_checks:
        yield element("td", *_check(row))


def _check(row: Row) -> Iterator[Html]:
    if row.check is not None:
        yield element("span", row.check, class_=f"check {row.check.replace(' ', '-')}")
    if row.problem is not None and row.cells is not None:
        yield element("div", row.problem, class_="problem")
