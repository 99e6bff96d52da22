"""Which files an attempt descends from, and which belong to a branch that was left.

A run consists of attempts, one for each call of ``fit``. An attempt that resumes from a file descends from the attempt
that wrote the file, up to that file. What the earlier attempt wrote afterwards, and what other attempts wrote that
resumed from the same file, belongs to another branch.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """An attempt that a later one resumed from, after so many batches in all epochs."""

    attempt: str
    batches: int


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """One attempt and those it descends from, the first one first.

    ``generation``: how often the run had been resumed. It exceeds the number of ancestors where the run went back to an
    older file: the newest branch has the highest generation.
    """

    attempt: str
    generation: int = 0
    ancestors: tuple[Ancestor, ...] = ()

    @classmethod
    def begin(cls) -> Lineage:
        """A new run."""
        return cls(attempt=uuid.uuid4().hex[:12])

    def resume(self, batches: int) -> Lineage:
        """An attempt that resumes from a file of this one, saved after so many batches in all."""
        parent = Ancestor(attempt=self.attempt, batches=batches)
        return Lineage(
            attempt=uuid.uuid4().hex[:12], generation=self.generation + 1, ancestors=(*self.ancestors, parent)
        )

    def after(self, generations: int) -> Lineage:
        """The same, with a generation of at least ``generations``."""
        return replace(self, generation=max(self.generation, generations))

    def includes(self, attempt: str, batches: int) -> bool:
        """Whether this attempt, or one it descends from, is the one that wrote a file after so many batches in all."""
        return attempt == self.attempt or any(attempt == it.attempt and batches <= it.batches for it in self.ancestors)


UNKNOWN = Lineage(attempt="")
"""The lineage of files that do not state one."""
