"""The processes that Lightning launches beside the user's own: none outlives a training that has failed.

Lightning kills the user's process, rank 0, within five seconds of the end of a launched one that has failed, also in
the middle of a save. It leaves a launched one that hangs behind.
"""

from __future__ import annotations

import contextlib
import ctypes
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

_GRACE_SECONDS = 5.0  # in which a process that does not hang ends by itself, and says why
_PR_SET_PDEATHSIG = 1  # prctl(2)
_OF_GROUP = ("gloo", "NCCL", "monitoredBarrier")  # such errors of torch are no DistError


def is_launched(trainer: Trainer) -> bool:
    """Whether Lightning has started this process beside the user's own."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    launches = is_a(trainer.strategy.launcher, "_SubprocessScriptLauncher")
    return launches and is_a(environment, "LightningEnvironment") and trainer.local_rank > 0


def kill(trainer: Trainer) -> None:
    """Kill the processes that Lightning has launched from this one, as it does at a Ctrl-C."""
    launcher: Any = trainer.strategy.launcher
    if is_a(launcher, "_SubprocessScriptLauncher"):
        launcher.kill(signal.SIGKILL)


def end_with_parent(trainer: Trainer, *, whether: bool) -> None:
    """Let the system kill this process when the one that has launched it ends, or no longer. Only on Linux."""
    if sys.platform == "linux" and is_launched(trainer):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if whether else 0)


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
        observer._finished = True  # it would kill this process before that has said why it ends
    until = time.monotonic() + _GRACE_SECONDS
    for process in launcher.procs:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(until - time.monotonic(), 0.0))
    launcher.kill(signal.SIGKILL)


def _is_of_group(exception: BaseException) -> bool:
    """Whether the ranks cannot work together any more."""
    errors = [exception, exception.__cause__]
    of_group = any(word in str(error) for error in errors if isinstance(error, RuntimeError) for word in _OF_GROUP)
    return of_group or isinstance(exception, torch.distributed.DistError)


def _observers() -> list[Any]:
    return [thread for thread in threading.enumerate() if is_a(thread, "_ChildProcessObserver")]


class _FinishingObserver(Mixin, _ChildProcessObserver):
    finish: Callable[[], None]

    def _terminate_all(self) -> None:
        for process in self._child_processes:
            process.send_signal(signal.SIGKILL)
        self.finish()
        super()._terminate_all()
