"""Shows checkpoints as a table, as text that fits the width of the terminal, or as HTML."""

from __future__ import annotations

import html
import shutil
from collections.abc import Mapping, Sequence

from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.rows import COLUMNS, NUMBERS, marks_of, rows_of
from checkpointable.catalog.scan import Unreadable

_DROPPED = ("created", "step", "size")  # in this order, where the width does not suffice
_LEAST_NAME, _SHORT_NAME, _LEAST_CELL = 30, 20, 12
_GAP = 2
_CUT = "..."
_USUAL_WIDTH = 120


def as_text(
    infos: Sequence[CheckpointInfo],
    root: str,
    *,
    marks: Mapping[str, str] | None = None,
    unreadable: Sequence[Unreadable] = (),
    width: int | None = None,
) -> str:
    """A table in plain text, one line for each checkpoint; the middle of more than 20 is folded away.

    Args:
        infos: The checkpoints, newest last.
        root: Names are relative to it.
        marks: The mark of some, by path; ``None`` to find out the best and the last.
        unreadable: Files without metadata, which come last.
        width: The most characters of a line; ``None`` for those of the terminal.
    """
    found = rows_of(infos, root, marks_of(infos) if marks is None else marks, unreadable)
    lines = [found.header, *found.folded()]
    rows = [line for line in lines if not isinstance(line, int)]
    widths = _widths(rows, shutil.get_terminal_size((_USUAL_WIDTH, 24)).columns if width is None else width)
    return "\n".join(f"... {line} more" if isinstance(line, int) else _line(line, widths) for line in lines)


def as_html(
    infos: Sequence[CheckpointInfo],
    root: str,
    *,
    marks: Mapping[str, str] | None = None,
    unreadable: Sequence[Unreadable] = (),
) -> str:
    """The same table as HTML, with all text escaped, in the colours of the page. All rows can be unfolded."""
    found = rows_of(infos, root, marks_of(infos) if marks is None else marks, unreadable)
    shown = list(found.folded())
    table = _html_table(found.header, shown)
    if len(shown) == len(found.rows):
        return table
    return f"{table}<details><summary>all {len(found.rows)}</summary>{_html_table(found.header, found.rows)}</details>"


def _widths(rows: Sequence[tuple[str, ...]], width: int) -> dict[str, int]:
    """The width of each column that is shown, so that no line is longer than ``width`` if it is 60 or more."""
    widths = {name: max(map(len, column)) for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True)}
    if not widths["mark"]:
        del widths["mark"]
    for name in _DROPPED:
        if _left(widths, width) < min(widths["name"], _LEAST_NAME):
            del widths[name]
    if _left(widths, width) < min(widths["name"], _LEAST_NAME):
        widths["score"] = min(widths["score"], _LEAST_CELL)
    lacking = max(min(widths["name"], _SHORT_NAME) - _left(widths, width), 0)
    widths["kind"] = max(widths["kind"] - lacking, min(widths["kind"], _LEAST_CELL))
    widths["name"] = min(widths["name"], max(_left(widths, width), _LEAST_CELL))
    return widths


def _left(widths: Mapping[str, int], width: int) -> int:
    """What the other columns leave for the name."""
    return width - sum(length + _GAP for name, length in widths.items() if name != "name")


def _line(row: tuple[str, ...], widths: Mapping[str, int]) -> str:
    return (
        (" " * _GAP)
        .join(_padded(name, cell, widths[name]) for name, cell in zip(COLUMNS, row, strict=True) if name in widths)
        .rstrip()
    )


def _padded(name: str, cell: str, width: int) -> str:
    if name in NUMBERS:
        return cell.rjust(width)
    return (cut(cell, width) if name == "name" else _begun(cell, width)).ljust(width)


def _begun(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - len(_CUT)] + _CUT


def cut(name: str, width: int) -> str:
    """The name, or as much of its start and its end as fits; more of its end, where names differ."""
    if len(name) <= width:
        return name
    head = (width - len(_CUT)) // 3
    return f"{name[:head]}{_CUT}{name[len(name) - (width - len(_CUT) - head) :]}"


def _html_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...] | int]) -> str:
    body = "".join(
        f"<tr><td colspan={len(header)}>... {row} more</td></tr>" if isinstance(row, int) else _html_row("td", row)
        for row in rows
    )
    return f"<table><thead>{_html_row('th', header)}</thead><tbody>{body}</tbody></table>"


def _html_row(tag: str, cells: tuple[str, ...]) -> str:
    shown = [f"<b>{html.escape(cells[0])}</b>" if cells[0] else "", *map(html.escape, cells[1:])]
    sides = ("right" if name in NUMBERS else "left" for name in COLUMNS)
    return (
        "<tr>"
        + "".join(f'<{tag} style="text-align:{side}">{cell}</{tag}>' for side, cell in zip(sides, shown, strict=True))
        + "</tr>"
    )
