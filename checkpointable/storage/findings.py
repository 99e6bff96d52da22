"""What was found out about a directory, in lines that a person reads and a program takes apart."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import overload


class Outcome(StrEnum):
    """How a question was answered."""

    OK = "ok"
    WARNING = "warning"  # everything is saved, but something is lost, slower or less certain
    PROBLEM = "problem"  # saving or resuming fails here
    UNKNOWN = "unknown"  # it could not be found out


@dataclass(frozen=True)
class Finding:
    """The answer to one question about a directory.

    Attributes:
        what: The subject, such as ``"hard links"``.
        outcome: Whether it is as it should be.
        detail: What was seen, and what it means.
        cure: What to do about it; ``""`` where there is nothing to do.
    """

    what: str
    outcome: Outcome
    detail: str
    cure: str = ""

    def to_dict(self) -> dict[str, str]:
        """As plain strings."""
        return {**asdict(self), "outcome": self.outcome.value}


class Findings(Sequence[Finding]):
    """Findings about one directory, in the order in which they were made. Its ``repr`` is a table of plain text.

    Args:
        place: The directory, as a path or a URL.
        findings: The findings.
    """

    def __init__(self, place: str, findings: Iterable[Finding]) -> None:
        self._place = place
        self._findings = tuple(findings)

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Finding]: ...
    def __getitem__(self, index: int | slice) -> Finding | Sequence[Finding]:
        return self._findings[index]

    def __len__(self) -> int:
        return len(self._findings)

    @property
    def problems(self) -> list[Finding]:
        """Those because of which saving or resuming fails."""
        return [finding for finding in self if finding.outcome == Outcome.PROBLEM]

    def to_dicts(self) -> list[dict[str, str]]:
        """Each finding as a dictionary of strings, for ``json`` or a data frame."""
        return [finding.to_dict() for finding in self]

    def __repr__(self) -> str:
        counts = {outcome: sum(finding.outcome == outcome for finding in self) for outcome in Outcome}
        summary = ", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number)
        widest = max((len(finding.what) for finding in self), default=0)
        rows = [f"{it.outcome:<7}  {it.what:<{widest}}  {it.detail} {it.cure}" for it in self]
        return "\n".join(printable(line.rstrip()) for line in (f"{self._place}: {summary}", *rows))


def printable(text: str) -> str:
    """A text on one line. What cannot be printed, such as a line break in a file's name, is escaped."""
    return "".join(it if it.isprintable() else repr(it)[1:-1] for it in text)


def reason_of(error: OSError) -> str:
    """What the system says, without the path."""
    return error.strerror or str(error)


def milliseconds_since(begun: float) -> str:
    """The time since a value of ``time.perf_counter``, to be read."""
    return f"{(time.perf_counter() - begun) * 1000:.1f} ms"
