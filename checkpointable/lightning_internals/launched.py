"""The processes that Lightning launches beside the user's own: none outlives a training that has failed.

Lightning kills the user's process, rank 0, within five seconds of the end of a launched one that has failed, also in
the middle of a save. It leaves a launched one that hangs behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from checkpointable.lightning_internals.tree import Mixin, is_a, put_before

if TYPE_CHECKING:
    from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
    from lightning.pytorch import Trainer
else:  # at run time, the base is the class of the observer at hand
    _ChildProcessObserver = object

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows, as Lightning has it
_GRACE_SECONDS = 5.0  # in which a process that does not hang ends by itself, and says why
_PR_SET_PDEATHSIG = 1  # prctl(2)
_OF_GROUP = ("gloo", "NCCL", "monitoredBarrier")  # such errors of torch are no DistError


def find_out(trainer: Trainer) -> None:
    """Let each rank know whether the process of rank 0 has launched it. Collective."""
    launcher: Any = trainer.strategy.launcher
    if trainer.world_size > 1 and is_a(launcher, "_SubprocessScriptLauncher"):
        launcher.launched = trainer.strategy.broadcast([process.pid for process in launcher.procs])


def is_launched(trainer: Trainer) -> bool:
    """Whether it has, as it is known by then. A rank can also be started by hand, or by something else."""
    return trainer.node_rank == 0 and os.getpid() in getattr(trainer.strategy.launcher, "launched", ())


def kill(trainer: Trainer) -> None:
    """Kill the processes that Lightning has launched from this one, as it does at a Ctrl-C."""
    launcher: Any = trainer.strategy.launcher
    if is_a(launcher, "_SubprocessScriptLauncher"):
        launcher.kill(_KILL)


def end_with_parent(trainer: Trainer, *, whether: bool) -> None:
    """Let the system kill this process when the one that has launched it ends, or no longer. Only on Linux."""
    if sys.platform == "linux" and is_launched(trainer):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _KILL if whether else 0)


def finish_first(finish: Callable[[], None]) -> None:
    """Let Lightning finish this before it kills this process because a launched one has failed."""
    for observer in _observers():
        put_before(_FinishingObserver, observer)
        observer.finish = finish


def end_hung(trainer: Trainer, exception: BaseException) -> None:
    """After a failed collective: kill those that have not ended by themselves some seconds later."""
    launcher: Any = trainer.strategy.launcher
    if not is_a(launcher, "_SubprocessScriptLauncher") or not launcher.procs or not _is_of_group(exception):
        return
    for observer in _observers():
        observer.is_off = True  # it would kill this process before that has said why it ends
    until = time.monotonic() + _GRACE_SECONDS
    for process in launcher.procs:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(until - time.monotonic(), 0.0))
    launcher.kill(_KILL)


def _is_of_group(exception: BaseException) -> bool:
    """Whether the ranks cannot work together any more."""
    errors = [exception, exception.__cause__]
    of_group = any(word in str(error) for error in errors if isinstance(error, RuntimeError) for word in _OF_GROUP)
    return of_group or isinstance(exception, torch.distributed.DistError)


def _observers() -> list[Any]:
    return [thread for thread in threading.enumerate() if is_a(thread, "_ChildProcessObserver")]


class _FinishingObserver(Mixin, _ChildProcessObserver):
    finish: Callable[[], None]
    is_off = False

    def _terminate_all(self) -> None:
        for process in self._child_processes:
            process.send_signal(_KILL)
        self.finish()
        if not self.is_off:
            super()._terminate_all()
