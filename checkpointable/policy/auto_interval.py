"""How often to save where nobody says: as often as a share of the training time allows.

The method is CheckFreq's (Mohan, Phanishayee, Chidambaram, FAST'21): measure what a save costs and how long a batch
takes; the interval is the smallest number of batches for which the cost stays within the budget, and no save begins
before the one before is on disk; it is corrected both ways as either changes. (Where the mean time between failures mu
is known, Young 1974 and Daly 2006 give the time between saves as sqrt(2 * cost * mu); nobody knows it at a start.)

Three bounds are ours. What a save costs is the low median of the last five, so that no single slow one decides; and
since the first of a fit always is slow, a second one comes within a minute of training. The disk works at most a tenth
of the time. And where batches become slower, a save is due as soon as the interval's seconds have been trained for,
though its batches have not; several ranks measure different seconds, so there the batches alone decide.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean, median_low

_WINDOW = 1 << 14
_SAVES = 5  # so that two outliers among the last ones decide nothing
_BUSY_SHARE = 0.1  # of the time, at most: others use the disk, too, and an SSD wears with every byte
_SECOND_SECONDS = 60.0  # the first save of a fit allocates memory: what the next ones cost is to be known soon
_NOTABLE = 2.0
_FIRST_RETRY = 100
_PATIENCE_SECONDS = 600


class Auto:
    """Finds the interval of one training. Numbers of the training do not depend on it.

    ``interval``: batches between two saves; ``None`` before the first save was measured: one is due after the first
    batch. ``budget``: the share of training time that saving may cost.
    """

    def __init__(self, budget: float) -> None:
        self.interval: int | None = None
        self._budget = budget
        self._quiet: deque[float] = deque(maxlen=_WINDOW)
        self._writing: deque[float] = deque(maxlen=_WINDOW)
        self._costs: deque[float] = deque(maxlen=_SAVES)
        self._busy: deque[float] = deque(maxlen=_SAVES)
        self._batch = math.nan
        self._trained = 0.0  # seconds of batches since the last save began
        self._is_alone = True
        self._said: int | None = None

    def note_batch(self, seconds: float, *, writing: bool) -> None:
        """A batch took so long; ``writing``: while a save was under way."""
        self._trained += seconds
        (self._writing if writing else self._quiet).append(seconds)

    def note_start(self) -> None:
        """A save begins: the interval counts from here."""
        self._trained = 0.0

    def note_save(self, *, blocked: float, busy: float) -> None:
        """A save is done: training stood still for ``blocked`` seconds, and after ``busy`` it was on disk."""
        writing, quiet = list(self._writing), list(self._quiet)
        self._writing.clear()
        if writing or quiet:
            # batches beside a save are the slower ones; where they are not, the quiet ones are of another time
            self._batch = max(min(fmean(times) for times in (writing, quiet) if times), 1e-9)
        elif math.isnan(self._batch):
            return
        slowed = min(max(sum(writing) - len(writing) * self._batch, 0.0), busy) if quiet else 0.0
        self._costs.append(blocked + slowed)
        self._busy.append(busy)
        seconds = max(median_low(self._costs) / self._budget, median_low(self._busy) / _BUSY_SHARE)
        if len(self._costs) == 1:
            seconds = min(seconds, _SECOND_SECONDS)
        self.interval = max(math.ceil(seconds / self._batch), 2)  # two, so that there is a quiet one, too
        self._quiet.clear()

    def agree(self, interval: int | None) -> None:
        """Take over the interval of rank 0: from now on batches alone decide, which every rank counts alike."""
        self.interval = interval
        self._is_alone = False

    def note_failure(self) -> None:
        """A save failed: the next tries come less and less often, but every ten minutes at least."""
        interval = self.interval or _FIRST_RETRY
        longest = interval if math.isnan(self._batch) else math.ceil(_PATIENCE_SECONDS / self._batch)
        self.interval = max(interval, min(2 * interval, longest))

    def is_due(self, batches: int) -> bool:
        """Whether a save is due, so many batches after the last one began; after the start, if there was none."""
        if self.interval is None:
            return False
        return batches >= self.interval or (self._is_alone and self._trained >= self.interval * self._batch)

    def news(self) -> str | None:
        """One line for the user, when the interval is new or has changed by half or more."""
        if self.interval is None or (
            self._said is not None and self._said / _NOTABLE < self.interval < self._said * _NOTABLE
        ):
            return None
        self._said = self.interval
        share = median_low(self._costs) / (self.interval * self._batch)
        return f"saving every {self.interval} batches: {100 * share:.1f} % of training time"
