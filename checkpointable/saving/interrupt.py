"""Ctrl-C: the first finishes the batch, saves and stops; the second interrupts at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info


class CtrlC:
    """Notes a first Ctrl-C while a training runs. Leaves alone a handler that somebody else has set.

    Attributes:
        pressed: Whether there was one.
        pressed_again: Whether there was a second one: nothing more is to be begun, or waited for.
    """

    def __init__(self) -> None:
        self.pressed = self.pressed_again = False
        self._listening = False

    def listen(self) -> None:
        """Take over from Python's own handler, in the main thread."""
        self.pressed = self.pressed_again = False
        if _in_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._listening = True

    def close(self) -> None:
        """Give the signal back."""
        if self._listening:
            self._listening = False
            if signal.getsignal(signal.SIGINT) == self._note:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextlib.contextmanager
    def cuts_short(self) -> Iterator[None]:
        """Do what the first one asked for until there is a second one, which Lightning ignores once it stops."""
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if not (self.pressed and ignored and _in_main_thread()):
            yield
            return
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            yield
        except KeyboardInterrupt:  # not lost: the first one is on its way out of the training
            self.pressed_again = True
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            self.pressed_again = True
            signal.default_int_handler(number, frame)
        self.pressed = True
        rank_zero_info("\nInterrupted: this batch is finished and saved, then training stops. Again: stop at once.")

    def __deepcopy__(self, memo: dict[int, Any]) -> CtrlC:
        return CtrlC()

    def __reduce__(self) -> tuple[Any, ...]:
        return (CtrlC, ())


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
