"""Compares the batches that are trained again after a resume with their results before the kill, bit for bit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from lightning_utilities.core.rank_zero import rank_zero_info

from checkpointable._errors import CheckpointableWarning, ResumeError
from checkpointable.catalog.info import Confirmation
from checkpointable.storage.ring_file import bits_of, value_of

_ROUNDING, _ROUNDING_16_BIT = 1e-4, 1e-2  # relative differences that sums in another order can give
_RESULTS = {True: ("loss", "losses"), False: ("sample of parameters", "samples of parameters")}


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What is expected of a resume.

    Attributes:
        is_same: Whether it is to be the same run; if not, a difference is only told.
        strict: Whether a difference is an error.
        in_16_bit: Whether it is computed in 16 bits, which rounds more.
        rank: The rank that compares, in words; ``""`` if there is only one.
        resumed_from: The file.
    """

    is_same: bool
    strict: bool
    in_16_bit: bool
    rank: str
    resumed_from: str | None


class Comparison:
    """Compares one batch after the other, and says the outcome once.

    A record that is missing ends the comparison, and is no difference.

    Args:
        expected: The bits of the results before the kill, by number.
        after: The number of batches that were done in the file resumed from.
        expectation: Of this resume.
    """

    def __init__(self, expected: Mapping[int, int], after: int, expectation: Expectation) -> None:
        self._expected = expected
        self._expectation = expectation
        self._first = self._next = after + 1
        self._last = max(expected, default=after)
        self._results: set[bool] = set()
        self.first_difference: int | None = None
        self.is_over = self._first not in expected
        if self.is_over:
            missing = "the record of the first batch after the save is missing"
            say_nothing_to_compare(missing if expected else "the run stopped right after its save")

    @property
    def outcome(self) -> Confirmation | None:
        """What is known so far; ``None`` if nothing was compared."""
        equal = self._next - self._first
        if not equal and self.first_difference is None:
            return None
        return Confirmation(batches=equal, first_difference=self.first_difference)

    def add(self, number: int, value: float, *, is_loss: bool) -> None:
        """Compare the result of the next batch: its loss, or the sum of a sample of parameters.

        Raises:
            ResumeError: If it differs, and that is an error.
        """
        if self.is_over:
            return
        if number != self._next:  # the records begin at another batch than this training does
            self.end()
        elif self._expected[number] != bits_of(value):
            self.is_over, self.first_difference = True, number
            self._tell_difference(number, value_of(self._expected[number]), value, is_loss=is_loss)
        else:
            self._results.add(is_loss)
            self._next += 1
            if self._next not in self._expected:
                self.end()

    def end(self) -> None:
        """Compare no more, and say how many batches gave the same, unless that is said already."""
        if self.is_over:
            return
        self.is_over = True
        equal, known = self._next - self._first, self._last - self._first + 1
        if not equal:
            say_nothing_to_compare("no batch was trained again")
            return
        names = [_RESULTS[kind][equal > 1] for kind in sorted(self._results, reverse=True)]
        same = f"gave the same {' and '.join(names)}, bit for bit"
        if equal == known:
            batches = f"the {equal} batches" if equal > 1 else "the batch"
            rank_zero_info(f"checkpointable: resume confirmed: {batches} up to the kill {same}")
            return
        batches = f"the first {equal}" if equal > 1 else "the first"
        why = "" if self._next in self._expected else f"; the record of batch {self._next} is missing"
        rank_zero_info(
            f"checkpointable: resume confirmed in part: {batches} of the {known} batches up to the kill {same}{why}"
        )

    def _tell_difference(self, number: int, was: float, now: float, *, is_loss: bool) -> None:
        expectation, result = self._expectation, _RESULTS[is_loss][0]
        shown = (f"{was:.9g}", f"{now:.9g}") if f"{was:.9g}" != f"{now:.9g}" else (f"{was:.17g}", f"{now:.17g}")
        difference = f"batch {number} of the run{expectation.rank} has the {result} {shown[1]}, and had {shown[0]}"
        difference += f" before the kill (batches before it that gave the same: {number - self._first})"
        if not expectation.is_same:
            rank_zero_info(f"checkpointable: {difference}. The resume is not exact, so this is expected.")
            return
        tolerance = _ROUNDING_16_BIT if expectation.in_16_bit else _ROUNDING
        is_rounding = math.isfinite(was) and math.isfinite(now) and math.isclose(was, now, rel_tol=tolerance)
        text = f"{difference}. {_CAUSE[is_rounding]}"
        if expectation.strict:
            raise ResumeError(
                f"the resume from {expectation.resumed_from} is not the same run (strict_resume=True): {text}"
                " To go on all the same, set strict_resume=False."
            )
        warnings.warn(f"the resume is not the same run: {text}", CheckpointableWarning, stacklevel=2)


_CAUSE = {
    True: (
        "The difference is of the size of rounding: kernels that are not deterministic give it. Set"
        " Trainer(deterministic=True) to exclude them."
    ),
    False: (
        "The difference is larger than rounding: it is another batch, or other weights or code. Compare the data and"
        " the script with those of the run before the kill."
    ),
}


def say_nothing_to_compare(why: str) -> None:
    """Say that no batch shows whether the resume is the same run."""
    rank_zero_info(f"checkpointable: nothing to compare: {why}")
