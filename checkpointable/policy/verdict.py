"""How exactly each part of a run's state resumes, and on what evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How exactly a part resumes, from the best to the worst."""

    EXACT = "exact"  # only on evidence: it was put back and found the same, or seen to be used as expected
    CHANGED = "changed"  # the script's value is used on purpose, in place of the file's
    APPROXIMATE = "approximate"  # it differs, or nothing shows that it is the same
    LOST = "lost"  # it is not restored at all


@dataclass(frozen=True)
class Verdict:
    """How exactly one part resumes; ``why`` is the evidence for ``EXACT``, and the reason for every other level."""

    part: str
    level: Level
    why: str

    def __str__(self) -> str:
        return f"{self.part}: {self.level} ({self.why})"


def not_exact(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The verdicts that are not exact."""
    return [verdict for verdict in verdicts if verdict.level != Level.EXACT]


def exactness(verdicts: Iterable[Verdict]) -> str:
    """All verdicts in one line: ``"exact"``, ``"exact but for: ..."`` where only changes are wanted, or what is not."""
    found = not_exact(verdicts)
    if found and all(verdict.level == Level.CHANGED for verdict in found):
        return "exact but for: " + "; ".join(f"{verdict.part} ({verdict.why})" for verdict in found)
    return "; ".join(map(str, found)) or "exact"
