"""The safe points. Lightning has no hook where the state of a training is whole; its loops have such moments.

After ``_TrainingEpochLoop.on_advance_end`` a batch is over: every callback, the user's hooks, the validation that the
batch triggered, plateau schedulers and counters are done, and the next batch has not been fetched, so no random number
of it is drawn. After ``_FitLoop.on_advance_end`` the same holds for an epoch. (The hooks that come nearest lack this:
in ``on_train_batch_end`` the validation is still to come, in ``on_train_epoch_end`` the schedulers are, and in the next
batch's start its data has been drawn.) The loops get these subclasses as their class when a fit starts; their names
stay, since profilers print them.
"""

from __future__ import annotations

from typing import Any, Protocol

from lightning.pytorch import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.utilities.exceptions import SIGTERMException

from checkpointable import _lightning


class Listener(Protocol):
    """What a module has to offer to hear of the safe points."""

    resumed_at: str | None

    def on_start(self, trainer: Trainer) -> None:
        """A fit is about to call its first hook of training."""

    def on_batch_over(self, trainer: Trainer, *, terminating: bool) -> None:
        """A batch is over; if ``terminating``, a signal ends the training right here."""

    def on_epoch_ending(self, trainer: Trainer, *, early: bool) -> None:
        """The hooks of the epoch's end are next; ``early``: the training stops before the epoch's last batch."""

    def on_epoch_over(self, trainer: Trainer, *, terminating: bool) -> None:
        """An epoch is over; if ``terminating``, a signal ends the training right here."""

    def on_end(self, trainer: Trainer) -> None:
        """The training has come to its end, and the hooks of its end are next."""


def observe(trainer: Trainer) -> None:
    """Let the modules of this trainer hear of the safe points. Doing it again changes nothing."""
    _become(trainer.fit_loop, _ObservedFitLoop, _FitLoop)
    _become(trainer.fit_loop.epoch_loop, _ObservedEpochLoop, _TrainingEpochLoop)


def _become(loop: _Loop, observed: type[_Loop], plain: type[_Loop]) -> None:
    if isinstance(loop, observed):
        return
    if type(loop) is plain:
        loop.__class__ = observed
    else:  # somebody else's subclass: ours on top of it
        loop.__class__ = type(type(loop).__name__, (observed, type(loop)), {})


def _listener(loop: _Loop) -> Listener | None:
    module = loop.trainer.lightning_module
    return None if module is None else module.__dict__.get("_checkpointing")


class _ObservedEpochLoop(_TrainingEpochLoop):
    def reset(self) -> None:
        """Go on after a batch that is wholly over: none of Lightning's repairs for hooks cut short applies."""
        listener = _listener(self)
        stepped = self._batches_that_stepped
        super().reset()
        if listener is not None and listener.resumed_at == "batch" and self._restarting:
            self.restarting = False
            self.reset_restart_stage()
            self.val_loop.reset_restart_stage()
            self._batches_that_stepped = stepped
        if listener is not None:
            listener.resumed_at = None

    def on_advance_end(self, data_fetcher: Any) -> None:
        listener = _listener(self)
        try:
            super().on_advance_end(data_fetcher)
        except SIGTERMException:
            if listener is not None:
                listener.on_batch_over(self.trainer, terminating=True)
            raise
        if listener is not None:
            listener.on_batch_over(self.trainer, terminating=False)


class _ObservedFitLoop(_FitLoop):
    def teardown(self) -> None:
        _lightning.show_validation_step(self.trainer.lightning_module)
        super().teardown()

    def reset(self) -> None:
        """Go on after an epoch that is wholly over: the next one starts, as it does in a run without a stop."""
        listener = _listener(self)
        if listener is not None and listener.resumed_at == "epoch":
            _Loop.restarting.fset(self, False)  # type: ignore[attr-defined]  # past _FitLoop's own idea of restarting
        super().reset()

    def on_run_start(self) -> None:
        listener = _listener(self)
        if listener is not None:
            listener.on_start(self.trainer)
        super().on_run_start()

    def on_advance_end(self) -> None:
        listener = _listener(self)
        if listener is not None:
            listener.on_epoch_ending(self.trainer, early=not self.epoch_loop._num_ready_batches_reached())
        try:
            super().on_advance_end()
        except SIGTERMException:
            if listener is not None:
                listener.on_epoch_over(self.trainer, terminating=True)
            raise
        if listener is not None:
            listener.on_epoch_over(self.trainer, terminating=False)

    def on_run_end(self) -> None:
        listener = _listener(self)
        if listener is not None:
            listener.on_end(self.trainer)
        super().on_run_end()


for _observed, _plain in ((_ObservedEpochLoop, _TrainingEpochLoop), (_ObservedFitLoop, _FitLoop)):
    _observed.__name__ = _plain.__name__
