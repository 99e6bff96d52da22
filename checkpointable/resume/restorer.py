"""Restores a run, each part of its state when Lightning needs it.

Lightning makes the loaders before any hook of training, and with worker processes the order of the data is drawn then.
Logged values are shown from the first hook on. The random generators are restored last, right before the next batch is
fetched or the next epoch starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from checkpointable._errors import ResumeError
from checkpointable.lightning_internals import logged
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.position import Ended
from checkpointable.resume import accumulated_gradients, loaders, module_modes, report, rng, settings
from checkpointable.resume.state import RankState, RunState


class Restorer:
    """Restores from a checkpoint what is needed to resume the same run.

    Args:
        state: Of the run.
        saved: Of this rank; ``None`` if the checkpoint has none for it.
        ended: What had just ended, by Lightning's counters.
    """

    def __init__(self, state: RunState, saved: RankState | None, ended: Ended) -> None:
        self._state = state
        self._saved = saved
        self._ended: Ended | None = None if saved is None else ended
        self._rng_pending = self._validation_pending = saved is not None
        self._has_started = False
        self._between_passes = ended == Ended.EPOCH

    def on_run(self, trainer: Trainer) -> None:
        """Before the loop checks what is left to train: restore Lightning's seed, and whether it had stopped early."""
        if self._state.ended is None and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._between_passes = True  # saved by another callback after a pass's last batch
        if self._saved is not None:
            internals.set_global_seed(self._saved.seed)
        if self._state.stopped_early:
            trainer.should_stop = True

    def on_training_loaders(self, loader: CombinedLoader, epoch: int) -> None:
        """When the training loaders are made, and not yet their iterators: set them to where they stood."""
        if self._ended is not None and not self._has_started:
            between = self._between_passes
            loaders.resume_at(loader, self._here.training, epoch, between_passes=between)

    def on_validation_loaders(self, trainer: Trainer, loader: CombinedLoader) -> None:
        """When the validation loaders are made: restore their generators, and the workers that were running."""
        if not self._rng_pending and internals.reloads(trainer, self._state.reloaded_epochs["validation"]):
            self._validation_pending = False  # the uninterrupted run made new ones here, too
        if self._validation_pending:
            loaders.start_persistent_workers(loader, self._here.validation)
            if not self._rng_pending:
                self._restore_validation(loader)

    def on_start(self, trainer: Trainer, initial_modes: Mapping[str, Sequence[str]], *, strict: bool) -> float:
        """Before the first hook of training: restore a window's gradients, running means, shown values and metrics.

        Args:
            trainer: Of the fit.
            initial_modes: The modes in which the script made the module; see ``module_modes``.
            strict: Whether to refuse a resume that is not exact.

        Returns:
            Training time in seconds since the last save that ``train_time_interval`` asked for.

        Raises:
            ResumeError: If ``strict`` and the resume is not exact, if the file's counters disagree, or if its
                optimizers are of other classes.
        """
        self._check_position(trainer)
        settings.check_optimizers(trainer, self._state.settings)
        findings = report.when_resumed(trainer, self._state, self._saved, self._ended)
        report.announce(trainer, self._state, findings, strict=strict)
        module_modes.log_differences(initial_modes, self._state.initial_modes)
        self._restore_training_state(trainer)
        return self._state.seconds

    def _restore_training_state(self, trainer: Trainer) -> None:
        self._has_started = True
        accumulated_gradients.restore(trainer.lightning_module, self._state.gradients)
        if self._ended == Ended.BATCH:
            logged.restore(trainer, self._here.logged)
        elif self._ended == Ended.EPOCH:
            logged.restore_shown(trainer, self._here.logged)
        if self._ended is not None:
            logged.restore_metrics(trainer.lightning_module, self._here.metrics)

    def before(self, trainer: Trainer, ended: Ended) -> bool:
        """Before the next batch is fetched or the next epoch starts: restore the generators and modes, once.

        Args:
            trainer: Of the fit.
            ended: ``BATCH`` before a batch, ``EPOCH`` before an epoch.

        Returns:
            Whether they were restored in this call.
        """
        if ended != self._ended or not self._rng_pending:
            return False
        self._rng_pending = False
        internals.set_reloaded_epochs(trainer, self._state.reloaded_epochs)
        training, validation = internals.training_loader(trainer), internals.validation_loader(trainer)
        loaders.restore_generators(training, self._here.training, include_samplers=ended == Ended.EPOCH)
        if validation is not None:
            self._restore_validation(validation)
        module_modes.restore(trainer.lightning_module, self._state.module_modes)
        if ended == Ended.BATCH:
            module_modes.restore_accumulation(trainer)
        rng.restore(self._here.random)
        return True

    def after_run(self, trainer: Trainer) -> None:
        """After the loop: if there was nothing left to train, restore the final state."""
        if not self._has_started:
            self._restore_training_state(trainer)
            if self._ended is not None:
                self.before(trainer, self._ended)
            rank_zero_info(f"checkpointable: this run ended after {self._state.position}: nothing is left to train.")

    @property
    def _here(self) -> RankState:
        """The state of this rank; only called if there is one."""
        assert self._saved is not None
        return self._saved

    def _check_position(self, trainer: Trainer) -> None:
        state = self._state
        if state.ended is None:
            return
        ours = (state.position.epoch + (state.ended == Ended.EPOCH), state.position.batch)
        counted = internals.counted(trainer)
        if ours != (counted.epoch, counted.batch):
            raise ResumeError(
                f"cannot resume from {trainer.ckpt_path}: it was saved after {state.position}, but Lightning's"
                f" counters in it say {counted}. Its parts do not belong together; resume from another checkpoint."
            )

    def _restore_validation(self, loader: CombinedLoader) -> None:
        self._validation_pending = False
        loaders.restore_generators(loader, self._here.validation, include_samplers=True)
