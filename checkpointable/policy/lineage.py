"""Which files belong to the way of a run, and which to a branch of it that was left.

Every fit is a segment of its run. One that goes on from a file has an ancestor: the segment that wrote the file, as far
as it had come there. What that segment wrote after it, and what others wrote that went on from the same file, belongs
to another branch.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Line:
    """One fit, and those it goes on from.

    Attributes:
        segment: The fit.
        ancestors: For each that it goes on from, the segment and the batches done in all where it was left.
    """

    segment: str
    ancestors: tuple[tuple[str, int], ...] = ()

    @classmethod
    def begin(cls) -> Line:
        """Of a fit that goes on from nothing."""
        return cls(segment=uuid.uuid4().hex[:12])

    def fork(self, batches: int) -> Line:
        """Of a fit that goes on from a file of this one, with so many batches done in all."""
        return Line(segment=uuid.uuid4().hex[:12], ancestors=(*self.ancestors, (self.segment, batches)))

    def has(self, segment: str, batches: int) -> bool:
        """Whether a file of that segment, with so many batches done in all, lies on the way to here."""
        return segment == self.segment or any(segment == other and batches <= end for other, end in self.ancestors)

    def to_list(self) -> list[list[str | int]]:
        """The ancestors and this one, in plain values."""
        return [list(fit) for fit in (*self.ancestors, (self.segment, -1))]

    @classmethod
    def from_list(cls, plain: Iterable[Iterable[str | int]]) -> Line:
        """The line that ``to_list`` gave."""
        *ancestors, (segment, _) = [(str(name), int(end)) for name, end in plain]
        return cls(segment=segment, ancestors=tuple(ancestors))


UNKNOWN = Line(segment="")  # of files that do not tell
