"""Where a command writes its answer: lines that fit the terminal, in colour where ``rich`` is installed, or JSON."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from checkpointable.cli.words import cells, cut
from checkpointable.storage.findings import printable

if TYPE_CHECKING:
    from rich.console import Console

Part: TypeAlias = "str | tuple[str, str]"
"""A piece of a line, alone or with a style of rich, such as ``"bold"``."""

GOOD, BAD, CAREFUL, QUIET, TITLE = "green", "bold red", "yellow", "dim", "bold"
_LEAST = 40  # columns
_ENOUGH = 28  # columns of a name, cut in its middle


@dataclass(kw_only=True)
class Screen:
    """Takes lines for people and, with ``--json``, in their place the answer for programs.

    Attributes:
        stream: Where it is written.
        width: Columns of the terminal; 80 where there is none.
        as_json: Whether JSON is printed, and no line.
        is_unicode: Whether the stream takes more than ASCII.
        console: Of rich; ``None`` for plain text.
        answer: What ``main`` prints as JSON when the command is done.
        is_lines: Whether the command has printed JSON by itself, one object a line.
    """

    stream: TextIO
    width: int = 80
    as_json: bool = False
    is_unicode: bool = True
    console: Console | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    is_lines: bool = False

    def line(self, *parts: Part, whole: bool = False) -> None:
        """Print one line, cut at the width unless it must be ``whole``, as something to be typed."""
        if self.as_json:
            return
        fitting, left = [], self.width
        for text, style in ((part, "") if isinstance(part, str) else part for part in parts):
            shown = self.encodable(printable(text))
            if not whole:
                shown = cut(shown, max(left, 0), self.mark)
                left -= cells(shown)
            fitting.append((shown, style))
        if self.console is None:
            print("".join(text for text, _ in fitting).rstrip(), file=self.stream)
            return
        from rich.text import Text

        self.console.print(Text.assemble(*fitting), soft_wrap=True)

    def path(self, path: str) -> None:
        """Print a path: its bytes for a program, and for a terminal no character that moves its cursor."""
        binary = getattr(self.stream, "buffer", None)
        if self.as_json or binary is None or self.stream.isatty():
            self.line(path, whole=True)
            return
        self.stream.flush()
        binary.write(os.fsencode(path) + b"\n")

    def line_to(self, path: str, *, after: Part) -> None:
        """Print a line that ends with a path, which is cut in its middle: names differ at their ends."""
        before = after if isinstance(after, str) else after[0]
        self.line(after, cut(self.encodable(printable(path)), self.width - cells(before), self.mark, middle=True))

    def text(self, text: str, *, indent: str = "", style: str = "") -> None:
        """Print a text of any length, wrapped at words."""
        lines = textwrap.wrap(printable(text), self.width, initial_indent=indent, subsequent_indent=indent)
        for line in lines or [""]:
            self.line((line, style))

    def table(
        self, rows: Iterable[Sequence[Part]], *, right: Iterable[int] = (), shrink: int = -1, spare: Sequence[int] = ()
    ) -> None:
        """Print rows in columns.

        Args:
            rows: The cells, as many in each row.
            right: The columns that are aligned to the right.
            shrink: The column that is cut in the middle where a row is too wide.
            spare: The columns that are left out, one after the other, where it would be cut to less than it needs.
        """
        pairs = [[(it, "") if isinstance(it, str) else it for it in row] for row in rows]
        if not pairs:
            return
        shown = [[(self.encodable(printable(text)), style) for text, style in row] for row in pairs]
        widths = dict(enumerate(max(cells(text) for text, _ in column) for column in zip(*shown, strict=True)))
        shrink %= len(widths)
        left_out = iter(spare)
        while (room := self._room(widths, shrink)) < min(widths[shrink], _ENOUGH):
            gone = next(left_out, None)
            if gone is None:
                break
            del widths[gone]
        widths[shrink] = min(widths[shrink], max(room, 8))
        for row in shown:
            parts: list[Part] = []
            for column, width in widths.items():
                text, style = row[column]
                fitting = cut(text, width, self.mark, middle=True) if column == shrink else text
                free = " " * (width - cells(fitting))
                gap = "  " if column != max(widths) else ""
                parts.append((f"{free}{fitting}{gap}" if column in right else f"{fitting}{free}{gap}", style))
            self.line(*parts)

    def _room(self, widths: Mapping[int, int], column: int) -> int:
        """What the other columns leave to one."""
        return self.width - sum(widths.values()) + widths[column] - 2 * (len(widths) - 1)

    @property
    def mark(self) -> str:
        """What stands for something that was cut."""
        return "…" if self.is_unicode else "..."

    def encodable(self, text: str) -> str:
        """The text with escapes in place of what the stream cannot take."""
        if self.is_unicode or text.isascii():
            return text
        encoding = getattr(self.stream, "encoding", None) or "ascii"
        return text.encode(encoding, "backslashreplace").decode(encoding)


def screen_on(stream: TextIO, *, as_json: bool) -> Screen:
    """A screen for a stream: in colour on a terminal with ``rich``, unless ``NO_COLOR`` is set."""
    width = max(shutil.get_terminal_size((80, 24)).columns, _LEAST)
    is_styled = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Screen(
        stream=stream,
        width=width,
        as_json=as_json,
        is_unicode=_takes_unicode(stream),
        console=_console(stream, width) if is_styled and not as_json else None,
    )


def _takes_unicode(stream: TextIO) -> bool:
    try:
        "▁█…━".encode(getattr(stream, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _console(stream: TextIO, width: int) -> Console | None:
    try:
        from rich.console import Console
    except ImportError:  # it is an extra
        return None
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
