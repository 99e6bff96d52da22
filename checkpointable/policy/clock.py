"""The training time since the last save that ``train_time_interval`` asked for."""

from __future__ import annotations

import time


class Clock:
    """Measures that time in one process.

    Attributes:
        of_first: That time on rank 0 before the present batch, where several ranks agree on it; else ``None``.
    """

    def __init__(self) -> None:
        self.of_first: float | None = None
        self.start(0.0)

    @property
    def seconds(self) -> float:
        """The time."""
        return time.monotonic() - self._last_save

    def start(self, seconds: float) -> None:
        """Set it: training starts, or that save is due."""
        self._last_save = time.monotonic() - seconds
