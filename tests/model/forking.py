"""The same histories, in which a save that is killed runs in a process of its own, and ends by SIGKILL."""

from __future__ import annotations

import os
import signal
import warnings

from hypothesis.stateful import run_state_machine_as_test
from model.fits import Fit
from model.live import Live
from model.machine import Histories, profile
from model.world import World

from checkpointable.saving.save_task import SaveRequest, SaveResult


class ForkingWorld(World):
    """A directory whose processes are forked for the save in which they die."""

    killed = 0

    def _result_of(
        self, live: Live, request: SaveRequest, serial: int, strike: int | None, beside
    ) -> SaveResult | None:
        if strike is None or beside is not None:
            return super()._result_of(live, request, serial, strike, beside)
        child = os.fork()
        if not child:
            _save_and_die(live, request, serial, strike)
        _, status = os.waitpid(child, 0)
        live.process.end()
        assert os.WTERMSIG(status) == signal.SIGKILL
        ForkingWorld.killed += 1
        return None


class ForkedHistories(Histories):
    world_type = ForkingWorld


def histories(count: int, steps: int) -> int:
    """Run so many of at most so many steps, in this process of one thread; return how many children were killed."""
    warnings.simplefilter("ignore")
    run_state_machine_as_test(ForkedHistories, settings=profile(count, steps))
    return ForkingWorld.killed


def _save_and_die(live: Live, request: SaveRequest, serial: int, strike: int) -> None:
    """At the latest when the file is saved."""
    fit: Fit = live.fit
    try:
        live.process.strike(strike, _die)
        with live.process.running():
            fit.save(request, serial)
    finally:
        _die()


def _die() -> None:
    signal.raise_signal(signal.SIGKILL)
