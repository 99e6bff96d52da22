"""Ctrl-C: the first finishes the batch, saves and stops; the second interrupts at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_info

from checkpointable.lightning_internals.listener import Interrupt


class CtrlC(Interrupt):
    """Notes a first Ctrl-C while a training runs. If user code has set a handler, that stays and nothing is noted.

    After a second Ctrl-C (``pressed_again``) no save is begun or waited for.
    """

    def __init__(self) -> None:
        self.pressed = self.pressed_again = False
        self._listening = False

    def listen(self) -> None:
        """Replace Python's own handler, in the main thread."""
        self.pressed = self.pressed_again = False
        if _in_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._listening = True

    def close(self) -> None:
        """Restore Python's own handler."""
        if self._listening:
            self._listening = False
            if signal.getsignal(signal.SIGINT) == self._note:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextlib.contextmanager
    def cuts_short(self) -> Iterator[None]:
        """End the work inside at a second Ctrl-C. Lightning may ignore the signal where it handles an exception."""
        if not (self.pressed and _in_main_thread()):
            yield
            return
        before = signal.getsignal(signal.SIGINT)
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            yield
        except KeyboardInterrupt:  # not lost: the first one ends the training
            self.pressed_again = True
        finally:
            signal.signal(signal.SIGINT, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            self.pressed_again = True
            signal.default_int_handler(number, frame)
        self.pressed = True
        rank_zero_info("\nInterrupted: after this batch the state is saved, and training stops. Again: stop at once.")

    def __reduce__(self) -> tuple[Any, ...]:  # for copies and pickles: they listen to no signal
        return (CtrlC, ())


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
