"""How exactly each part of a run's state resumes, and on what evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How exactly a part resumes. Only ``APPROXIMATE`` and ``LOST`` break the promise of the same run."""

    EXACT = "exact"  # only on evidence: it was put back and found the same, or seen to be used as expected
    FROM_FILE = "from the file"  # the script asks for another value, and the file's is used: the same run
    FROM_SCRIPT = "from the script"  # the script's value is used, as the script asks
    ASKED = "asked for"  # the script's is used, because ``from_script`` names it
    APPROXIMATE = "approximate"  # it differs, or nothing shows that it is the same
    LOST = "lost"  # it is not restored at all


@dataclass(frozen=True)
class Verdict:
    """How exactly one part resumes; ``why`` is the evidence for ``EXACT``, and the reason for every other level."""

    part: str
    level: Level
    why: str

    def __str__(self) -> str:
        if self.level in (Level.FROM_FILE, Level.FROM_SCRIPT, Level.ASKED):
            return f"{self.part} {self.why}"
        return f"{self.part}: {self.level} ({self.why})"


def not_exact(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """What ``strict_resume`` refuses."""
    return [verdict for verdict in verdicts if verdict.level not in (Level.EXACT, Level.ASKED)]


def exactness(verdicts: Iterable[Verdict]) -> str:
    """All verdicts in one line. It starts with ``exact`` if nothing is approximate or lost.

    ``exact but for: ...`` where the script's values are used on purpose, ``exact (...)`` where it asks for values that
    are not used.
    """
    found = [verdict for verdict in verdicts if verdict.level != Level.EXACT]
    of_file = "; ".join(str(it) for it in found if it.level == Level.FROM_FILE)
    of_script = "; ".join(str(it) for it in found if it.level in (Level.ASKED, Level.FROM_SCRIPT))
    broken = [str(it) for it in found if it.level in (Level.APPROXIMATE, Level.LOST)]
    if broken:
        return "; ".join([*broken, *filter(None, (of_file, of_script))])
    line = f"exact but for: {of_script}" if of_script else "exact"
    return f"{line} ({of_file})" if of_file else line
