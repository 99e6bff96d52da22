"""The safe points. Lightning has no hook where the state of a training is whole; its loops have such moments.

After ``_TrainingEpochLoop.on_advance_end`` a batch is over: every callback, the user's hooks, the validation that the
batch triggered, plateau schedulers and counters are done, and the next batch has not been fetched, so no random number
of it is drawn. After ``_FitLoop.on_advance_end`` the same holds for an epoch. (The hooks that come nearest lack this:
in ``on_train_batch_end`` the validation is still to come, in ``on_train_epoch_end`` the schedulers are, and in the next
batch's start its data has been drawn.) The loops get these subclasses as their class when a fit starts; their names
stay, since profilers print them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from lightning.pytorch import Trainer
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import SIGTERMException

from checkpointable.lightning_internals import hidden_step
from checkpointable.policy.position import Ended


class Listener(Protocol):
    """What a module has to offer to hear of the safe points, and of the moments at which a resumed run comes back."""

    resumes_after: Ended | None

    def on_run_start(self, trainer: Trainer) -> None:
        """The training loop is about to look whether there is anything left to train."""

    def on_run_end(self, trainer: Trainer) -> None:
        """The training loop is left, after its end or because there was nothing left to train."""

    def on_run_failed(self) -> None:
        """The training loop is left by an exception, and no callback has heard of it yet."""

    def on_training_loaders(self, trainer: Trainer, loader: CombinedLoader) -> bool:
        """Training loaders are made, their iterators not yet; returns whether places are restored by the listener."""

    def on_validation_loaders(self, trainer: Trainer, loader: CombinedLoader) -> None:
        """Validation loaders are made."""

    def on_train_start(self, trainer: Trainer) -> None:
        """A fit is about to call its first hook of training."""

    def before_first(self, trainer: Trainer, what: Ended) -> bool:
        """A loop's first ``"batch"`` is about to be fetched, or an ``"epoch"`` to start; whether after a resume."""

    def on_batch_start(self) -> None:
        """The next batch is about to be fetched."""

    def on_batch_trained(self) -> None:
        """A batch has been trained, and its validation is next, if it triggers one."""

    def on_batch_end(self, trainer: Trainer, *, terminating: bool) -> None:
        """A batch is over; if ``terminating``, a signal ends the training right here."""

    def on_epoch_ending(self, trainer: Trainer, *, early: bool) -> None:
        """The hooks of the epoch's end are next; ``early``: the training stops before the epoch's last batch."""

    def on_epoch_end(self, trainer: Trainer, *, terminating: bool) -> None:
        """An epoch is over; if ``terminating``, a signal ends the training right here."""

    def on_train_end(self, trainer: Trainer) -> None:
        """The training has come to its end, and the hooks of its end are next."""


def observe(trainer: Trainer) -> None:
    """Let the modules of this trainer hear of the safe points. Doing it again changes nothing."""
    _become(trainer.fit_loop, _ObservedFitLoop, _FitLoop)
    _become(trainer.fit_loop.epoch_loop, _ObservedEpochLoop, _TrainingEpochLoop)
    _become(trainer.fit_loop.epoch_loop.val_loop, _ObservedEvaluationLoop, _EvaluationLoop)


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
        if listener is None:
            super().reset()
            return
        stepped = self._batches_that_stepped
        with _quiet_about_resumable_loaders(self.trainer):
            super().reset()
        if listener.resumes_after == "batch" and self._restarting:
            self.restarting = False
            self.reset_restart_stage()
            self.val_loop.reset_restart_stage()
            self._batches_that_stepped = stepped
            self.trainer.fit_loop._restarting = False  # or the epoch's plateau schedulers are passed over at its end
        listener.resumes_after = None
        listener.before_first(self.trainer, Ended.BATCH)

    def advance(self, data_fetcher: Any) -> None:
        listener = _listener(self)
        if listener is not None:
            listener.on_batch_start()
        super().advance(data_fetcher)

    def on_advance_end(self, data_fetcher: Any) -> None:
        listener = _listener(self)
        if listener is not None:
            listener.on_batch_trained()
        try:
            super().on_advance_end(data_fetcher)
        except SIGTERMException:
            if listener is not None and not self.trainer.validating:  # or it comes out of the validation: a torn state
                listener.on_batch_end(self.trainer, terminating=True)
            raise
        if listener is not None:
            listener.on_batch_end(self.trainer, terminating=False)


class _ObservedEvaluationLoop(_EvaluationLoop):
    def setup_data(self) -> None:
        super().setup_data()
        listener = _listener(self)
        if listener is not None and self._combined_loader is not None:
            listener.on_validation_loaders(self.trainer, self._combined_loader)


class _ObservedFitLoop(_FitLoop):
    def run(self) -> None:
        listener = _listener(self)
        if listener is None:
            super().run()
            return
        listener.on_run_start(self.trainer)
        try:
            super().run()
        except BaseException:
            listener.on_run_failed()
            raise
        listener.on_run_end(self.trainer)

    def load_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """A resumed run needs no sanity check; Lightning runs one where the checkpoint was taken after an epoch."""
        super().load_state_dict(state_dict, prefix)
        listener = _listener(self)
        if listener is not None and listener.resumes_after == "epoch":
            self.epoch_loop.val_loop._restarting = True  # until reset, below

    def _load_combined_loader_states(self) -> None:
        """Called between the making of the loaders and that of their iterators."""
        listener = _listener(self)
        loader = self._combined_loader
        if listener is not None and loader is not None and listener.on_training_loaders(self.trainer, loader):
            self._combined_loader_states_to_load = []
        super()._load_combined_loader_states()

    def on_advance_start(self) -> None:
        listener = _listener(self)
        if listener is not None and listener.before_first(self.trainer, Ended.EPOCH):
            self._resuming_from_checkpoint = False  # so that the epoch's iterator is made where it always is
        super().on_advance_start()

    def teardown(self) -> None:
        hidden_step.show_validation_step(self.trainer.lightning_module)
        super().teardown()

    def reset(self) -> None:
        """Go on after an epoch that is wholly over: the next one starts, as it does in a run without a stop."""
        listener = _listener(self)
        if listener is not None and listener.resumes_after == "epoch":
            _Loop.restarting.fset(self, False)  # type: ignore[attr-defined]  # past _FitLoop's own idea of restarting
        super().reset()

    def on_run_start(self) -> None:
        listener = _listener(self)
        if listener is not None:
            listener.on_train_start(self.trainer)
        super().on_run_start()

    def on_advance_end(self) -> None:
        listener = _listener(self)
        if listener is not None:
            listener.on_epoch_ending(self.trainer, early=not self.epoch_loop._num_ready_batches_reached())
        try:
            super().on_advance_end()
        except SIGTERMException:
            if listener is not None:
                listener.on_epoch_end(self.trainer, terminating=True)
            raise
        if listener is not None:
            listener.on_epoch_end(self.trainer, terminating=False)

    def on_run_end(self) -> None:
        listener = _listener(self)
        if listener is not None:
            listener.on_train_end(self.trainer)
        super().on_run_end()


@contextlib.contextmanager
def _quiet_about_resumable_loaders(trainer: Trainer) -> Iterator[None]:
    """Lightning warns of every loader without a state of its own when it resumes inside an epoch; ours keep theirs."""
    loader = trainer.fit_loop._combined_loader
    assert loader is not None
    flattened, loader._flattened = loader._flattened, []
    try:
        yield
    finally:
        loader._flattened = flattened


for _observed, _plain in (
    (_ObservedEpochLoop, _TrainingEpochLoop),
    (_ObservedEvaluationLoop, _EvaluationLoop),
    (_ObservedFitLoop, _FitLoop),
):
    _observed.__name__ = _plain.__name__
