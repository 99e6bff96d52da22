"""Finds how often to save for ``save_interval="auto"``: as often as a share of the training time allows.

The method is CheckFreq's (Mohan, Phanishayee, Chidambaram, FAST'21): measure what a save costs and how long a batch
takes. The interval is the smallest number of batches for which the cost stays within the budget, and no save begins
before the previous one is on disk. The interval grows and shrinks with both measurements. (If the mean time between
failures mu were known, Young 1974 and Daly 2006 would give the time between saves as sqrt(2 * cost * mu); at the start
of a training it is not.)

Three bounds are added. The cost is the low median of the last five saves, so that one slow save does not decide; the
first save of a fit is always slow, so a second one is due within a minute of training. The disk is busy at most a tenth
of the time. If batches become slower, a save is due as soon as the interval's seconds are trained, before its batches
are; several ranks measure different seconds, so with them only the batches count.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, median_low

_WINDOW = 1 << 14
_SAVES = 5  # the low median of five ignores two outliers
_BUSY_SHARE = 0.1  # of the time, at most: other programs use the disk, and writing wears an SSD out
_SECOND_SECONDS = 60.0  # the first save of a fit also allocates memory, so the second is measured soon
_NOTABLE = 2.0
_FIRST_RETRY = 100
_PATIENCE_SECONDS = 600


@dataclass(eq=False)
class Auto:
    """Finds the interval of one training, whose results do not depend on it.

    ``interval``: batches between two saves; ``None`` before the first save, due after the first batch, is measured.
    ``budget``: the share of training time that saving may cost.
    """

    budget: float
    interval: int | None = None
    _quiet: deque[float] = field(default_factory=partial(deque, maxlen=_WINDOW))
    _writing: deque[float] = field(default_factory=partial(deque, maxlen=_WINDOW))
    _costs: deque[float] = field(default_factory=partial(deque, maxlen=_SAVES))
    _busy: deque[float] = field(default_factory=partial(deque, maxlen=_SAVES))
    _batch: float = math.nan
    _trained: float = 0.0  # seconds of batches since the last save began
    _is_alone: bool = True
    _said: int | None = None

    def note_batch(self, seconds: float, *, writing: bool) -> None:
        """Note how long a batch took; ``writing``: while a save was in progress."""
        self._trained += seconds
        (self._writing if writing else self._quiet).append(seconds)

    def note_start(self) -> None:
        """Count the interval from here, where a save begins."""
        self._trained = 0.0

    def note_save(self, *, blocked: float, busy: float) -> None:
        """A save is done: training waited for ``blocked`` seconds, and after ``busy`` it was on disk."""
        writing, quiet = list(self._writing), list(self._quiet)
        self._writing.clear()
        if writing or quiet:
            # batches during a save are slower; if they are not, the others were measured under other conditions
            self._batch = max(min(fmean(times) for times in (writing, quiet) if times), 1e-9)
        elif math.isnan(self._batch):
            return
        slowed = min(max(sum(writing) - len(writing) * self._batch, 0.0), busy) if quiet else 0.0
        self._costs.append(blocked + slowed)
        self._busy.append(busy)
        seconds = max(median_low(self._costs) / self.budget, median_low(self._busy) / _BUSY_SHARE)
        if len(self._costs) == 1:
            seconds = min(seconds, _SECOND_SECONDS)
        self.interval = max(math.ceil(seconds / self._batch), 2)  # two, so that one batch is without a save
        self._quiet.clear()

    def agree(self, interval: int | None) -> None:
        """Use the interval of rank 0. From now on only batches count, which are the same on every rank."""
        self.interval = interval
        self._is_alone = False

    def note_failure(self) -> None:
        """After a failed save: double the interval, up to ten minutes, so that failures do not slow training down."""
        interval = self.interval or _FIRST_RETRY
        longest = interval if math.isnan(self._batch) else math.ceil(_PATIENCE_SECONDS / self._batch)
        self.interval = max(interval, min(2 * interval, longest))

    def is_due(self, batches: int) -> bool:
        """Whether a save is due, so many batches after the last one began (or after the start)."""
        if self.interval is None:
            return False
        return batches >= self.interval or (self._is_alone and self._trained >= self.interval * self._batch)

    def news(self) -> str | None:
        """One line for the user if the interval is new, has halved or has doubled; else ``None``."""
        if self.interval is None or (
            self._said is not None and self._said / _NOTABLE < self.interval < self._said * _NOTABLE
        ):
            return None
        self._said = self.interval
        share = median_low(self._costs) / (self.interval * self._batch)
        return f"saving every {self.interval} batches: {100 * share:.1f} % of training time"
