"""Signals that end a training in order, with its state saved: what their handlers note, and what the ranks agree on.

Under several ranks a handler only notes the signal, and all ranks stop together at the start of a batch.

Lightning's handler broadcasts where the signal finds the process. There another rank waits in another collective, so
both wait for ever. Before each batch Lightning broadcasts rank 0's flag: in place of that, the ranks agree on the
highest number that one of them has noted, and on the time of rank 0. No collective is added to a batch.
"""

from __future__ import annotations

import signal
import time
from enum import IntEnum
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from checkpointable.lightning_internals import launched, slurm
from checkpointable.lightning_internals.listener import Listener
from checkpointable.lightning_internals.tree import Mixin, find, is_a, put_before

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
else:  # at run time, the base is the class of the connector that is observed
    _SignalConnector = object


class Stop(IntEnum):
    """What shall end the training; of two, the higher one counts."""

    NONE = 0
    CTRL_C = 1
    SIGTERM = 2
    REQUEUE = 3  # SLURM's signal: as SIGTERM, and the job is requeued


class Interrupted(SystemExit):
    """Ctrl-C has ended the training in order, with its state saved. Lightning's own way would end in status 1."""


def observe(trainer: Trainer) -> None:
    """Let this trainer's handler of SIGTERM only note it, in a fit on several ranks, until ``leave``."""
    put_before(_NotingConnector, trainer._signal_connector)
    connector: Any = trainer._signal_connector
    connector.noted, connector.noted_at, connector.is_used, connector.saves = Stop.NONE, None, True, False


def leave(trainer: Trainer) -> None:
    """After the fit: let Lightning's own handlers do what they do."""
    connector: Any = trainer._signal_connector
    connector.is_used = connector.saves = False


def save_before_requeue(trainer: Trainer) -> None:
    """From now on, let the signal by which SLURM announces the end of the job end the training in order."""
    connector: Any = trainer._signal_connector
    connector.saves = True


def noted(trainer: Trainer, listener: Listener) -> Stop:
    """What this process has noted."""
    connector: Any = trainer._signal_connector
    ctrl_c, sigterm = Stop.CTRL_C * listener.interrupt.pressed, Stop.SIGTERM * trainer.received_sigterm
    return Stop(max(connector.noted, ctrl_c, sigterm))


def agree(trainer: Trainer, listener: Listener) -> Stop:
    """What shall end the training by what the ranks have noted, and the time that rank 0 has measured. Collective."""
    if trainer.world_size == 1 or not torch.distributed.is_initialized():
        return Stop.NONE
    seconds = listener.clock.seconds if trainer.is_global_zero else 0.0
    mine = [float(noted(trainer, listener)), seconds]
    highest = torch.tensor(mine, dtype=torch.float32, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(highest, op=torch.distributed.ReduceOp.MAX)
    noted_of_all, seconds_of_first = highest.tolist()
    listener.clock.of_first = seconds_of_first
    return Stop(int(noted_of_all))


def end(trainer: Trainer, stop: Stop) -> None:
    """Raise what ends the training of this rank, if all agreed on it."""
    if stop:
        launched.end_with_parent(trainer, whether=False)
    if stop >= Stop.SIGTERM:
        connector: Any = trainer._signal_connector
        connector.received_sigterm = True
        connector.note(stop)
        raise find(trainer, "SIGTERMException")
    if stop is Stop.CTRL_C:
        raise Interrupted


def seconds_since_signal(trainer: Trainer) -> float | None:
    """Since this process heard that a signal, but for Ctrl-C, shall end the training; ``None`` if none shall."""
    noted_at: float | None = getattr(trainer._signal_connector, "noted_at", None)
    return None if noted_at is None else time.monotonic() - noted_at


def is_stop(exception: BaseException) -> bool:
    """Whether this is how SIGTERM or Ctrl-C ends the training, on all ranks at the same place."""
    return isinstance(exception, Interrupted) or is_a(exception, "SIGTERMException")


def set_exit_status(trainer: Trainer, exception: BaseException) -> None:
    """Let the process end as one that the signal has ended: SIGTERM would give 0, as a whole training does.

    Beside rank 0, processes that Lightning has launched end with 0: rank 0 would be killed where one fails.
    """
    if isinstance(exception, SystemExit) and is_stop(exception):
        number = int(signal.SIGINT if isinstance(exception, Interrupted) else signal.SIGTERM)
        if _is_to_requeue(trainer):
            number = slurm.requeue_signal(trainer)
        exception.code = 0 if launched.is_launched(trainer) else 128 + number


def requeue(trainer: Trainer, exception: BaseException) -> None:
    """Requeue the job, if it is ended by the signal for that, once the state is on disk."""
    if is_stop(exception) and _is_to_requeue(trainer):
        _requeue(trainer)


def requeue_at_end(trainer: Trainer) -> bool:
    """Requeue the job, if the signal for that came after the last batch; return whether it did."""
    if not _is_to_requeue(trainer):
        return False
    _requeue(trainer)
    return True


def _requeue(trainer: Trainer) -> None:
    connector: Any = trainer._signal_connector
    connector.noted = Stop.SIGTERM
    connector.trainer = slurm.Saved(trainer)
    try:
        connector.requeue()
    finally:
        connector.trainer = trainer


def _is_to_requeue(trainer: Trainer) -> bool:
    return getattr(trainer._signal_connector, "noted", Stop.NONE) is Stop.REQUEUE


class _NotingConnector(Mixin, _SignalConnector):
    noted = Stop.NONE
    noted_at: float | None = None
    is_used = saves = False

    def note(self, stop: Stop) -> None:
        self.noted = max(self.noted, stop)
        self.noted_at = self.noted_at or time.monotonic()

    def requeue(self) -> None:
        super()._slurm_sigusr_handler_fn(slurm.requeue_signal(self.trainer), None)  # type: ignore[arg-type]

    def _slurm_sigusr_handler_fn(self, signum: Any, frame: FrameType | None) -> None:
        if not self.saves or self.trainer.state.fn != "fit":
            super()._slurm_sigusr_handler_fn(signum, frame)  # type: ignore[arg-type]
            return
        self.note(Stop.REQUEUE)
        self.received_sigterm = self.received_sigterm or self.trainer.world_size == 1

    def _sigterm_notifier_fn(self, signum: Any, frame: FrameType | None) -> None:
        if self.trainer.world_size == 1 or self.trainer.state.fn != "fit" or not self.is_used:
            self.note(Stop.SIGTERM)
            super()._sigterm_notifier_fn(signum, frame)  # type: ignore[arg-type]
            return
        launcher: Any = self.trainer.strategy.launcher
        if self.noted is Stop.NONE and launcher is not None:
            launcher.kill(signum)  # forwards it: also before the first batch they end
        self.note(Stop.SIGTERM)
