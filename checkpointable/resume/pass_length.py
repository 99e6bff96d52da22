"""How many batches a pass over a loader has. In a resumed run, a pass that is shorter than before is a warning."""

from __future__ import annotations

import warnings
from typing import Any

from torch.utils.data import DataLoader

from checkpointable._errors import CheckpointableWarning
from checkpointable.resume.state import LoaderState


class PassLength:
    """The batches in the passes over one loader.

    Attributes:
        full: Of the latest pass that came to its end.
    """

    def __init__(self) -> None:
        self.full: int | None = None
        self._expected: int | None = None  # None: this run does not resume, or has warned
        self._at_least, self._more = 1, False

    def expect(self, state: LoaderState, *, more: bool) -> None:
        """Expect what this state says, from which the run resumes; ``more``: its pass has at least one more batch."""
        self.full, self._more = state.full, more
        known = state.length if state.full is None else state.full
        self._expected = 1 if known is None else known

    def start(self) -> None:
        """A pass begins."""
        self._at_least = 1

    def resume(self, delivered: int) -> None:
        """The pass in which the run resumes begins after so many batches."""
        self._at_least = delivered + self._more

    def end(self, loader: Any, delivered: int) -> None:
        """The loader has no more batches."""
        self.full = delivered
        if self._expected is None:
            return
        expected, self._expected = max(self._expected, self._at_least), delivered
        if delivered < expected:
            self._expected = None  # one warning is enough
            _warn(type(loader.dataset if isinstance(loader, DataLoader) else loader).__name__, delivered, expected)


def _warn(kind: str, batches: int, expected: int) -> None:
    warnings.warn(
        f"a pass over {kind} ended after {batches} batches in this resumed run, and it had at least {expected} before."
        f" Compare the data with those of the first run. If they are the same, {kind} does not return to a saved"
        " position: resume from a file that was saved at the end of an epoch.",
        CheckpointableWarning,
        stacklevel=2,
    )
