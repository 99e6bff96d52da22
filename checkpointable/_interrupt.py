"""Ctrl-C: the first finishes the batch, saves and stops; the second interrupts at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info


class CtrlC:
    """Notes a first Ctrl-C while a training runs. Leaves alone a handler that somebody else has set."""

    def __init__(self) -> None:
        self.pressed = False
        self._listening = False

    def listen(self) -> None:
        """Take over from Python's own handler, in the main thread."""
        self.pressed = False
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._listening = True

    def close(self) -> None:
        """Give the signal back."""
        if self._listening:
            self._listening = False
            if signal.getsignal(signal.SIGINT) == self._note:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            signal.default_int_handler(number, frame)
        self.pressed = True
        rank_zero_info("\nInterrupted: this batch is finished and saved, then training stops. Again: stop at once.")

    def __deepcopy__(self, memo: dict[int, Any]) -> CtrlC:
        return CtrlC()

    def __reduce__(self) -> tuple[Any, ...]:
        return (CtrlC, ())
