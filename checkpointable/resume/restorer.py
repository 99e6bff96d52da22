"""Restores a run, each part of its state when Lightning needs it.

Lightning makes the loaders before any hook of training, and with worker processes the order of the data is drawn then.
Logged values are shown from the first hook on. The random generators are restored last, right before the next batch is
fetched or the next epoch starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals import logged
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.listener import Restoring
from checkpointable.policy.from_script import Part
from checkpointable.policy.position import Ended, Position
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume import (
    dealing,
    evidence,
    from_script,
    gradient_sums,
    loader_verdict,
    module_rng,
    module_state,
    parameter_groups,
    parameter_names,
    rank_buffers,
    report,
    rng,
    script_values,
)
from checkpointable.resume.dtypes import restore_dtypes, restore_rounded
from checkpointable.resume.loader_position import LoaderPosition
from checkpointable.resume.loaders import follows_from, positions_of, track_positions, was_last
from checkpointable.resume.script_values import Difference, ScriptValues, compare
from checkpointable.resume.shards import in_shards
from checkpointable.resume.state import RankState, RunState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.utilities import CombinedLoader


class Restorer(Restoring):
    """Restores from a checkpoint what is needed to resume the same run. Without a checkpoint it restores nothing.

    Args:
        state: Of the run.
        saved: Of this rank; ``None`` if the checkpoint has none for it.
        ended: What had just ended, by Lightning's counters.
        loaded: The whole checkpoint. It is let go when the fit loop begins.
        parts: What comes from the script; ``from_script.leave_out`` has left it out of the checkpoint.
        verdicts: On what was changed in the checkpoint before Lightning loads it.

    Attributes:
        resumes: Whether there is a checkpoint.
        is_starting: Whether there is, and the first epoch or batch has not begun yet.
        found: What Lightning's finders had found, by attribute.
        verdicts: How exactly each part resumes; complete before the first hook of training.
    """

    def __init__(
        self,
        state: RunState | None = None,
        saved: RankState | None = None,
        ended: Ended | None = None,
        loaded: dict[str, Any] | None = None,
        parts: frozenset[Part] = frozenset(),
        verdicts: Sequence[Verdict] = (),
    ) -> None:
        self._state, self._parts, self._loaded = state, parts, loaded
        self._differing: list[Difference] = []
        self._before_loading = [*verdicts]
        self._new_weights: frozenset[str] = frozenset()
        self._script_rng: rng.State | None = None
        self._made: Mapping[str, Any] | None = None
        self.verdicts: list[Verdict] = []
        self.resumes = state is not None
        self.found: Mapping[str, float] = {} if state is None else state.found
        self._saved = saved
        self._ended = None if saved is None else ended
        self._rng_pending = self._validation_pending = saved is not None
        self._has_started = self._is_strict = False
        self.is_starting = self.resumes
        self._between_passes = ended == Ended.EPOCH

    def on_loaded(self, trainer: Trainer) -> None:
        """Before the strategy wraps the module."""
        if self._state is not None:
            gradient_sums.prepare(trainer, self._state.sums, len(self._state.ranks))

    def note_made(self, trainer: Trainer) -> Mapping[str, Any]:
        """Note the numbers of optimizers and schedulers, once, as the script has made them; see ``script_values``."""
        if self._made is None:
            self._made = script_values.made(trainer)
        return self._made

    def on_optimizers_made(self, trainer: Trainer) -> None:
        """Before Lightning restores optimizers and schedulers: set what the script decides in the checkpoint."""
        made, state, loaded = self.note_made(trainer), self._state, self._loaded
        if state is None or loaded is None:
            return
        strict = trainer.lightning_module.strict_loading  # else the module may have changed
        if not strict and Part.OPTIMIZERS not in self._parts and not in_shards(loaded):
            state, verdicts = parameter_names.fit_state(trainer, loaded, state, made)
            self._state, self._before_loading = state, [*self._before_loading, *verdicts]
        parameter_groups.set_numbers(trainer, loaded, state.made, made, self._parts)

    def on_run_start(self, trainer: Trainer) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Before the loop checks what is left to train.

        Restores Lightning's seed, and whether it had stopped early. Compares what Lightning has restored with the file.

        Args:
            trainer: With everything restored that Lightning restores.

        Returns:
            The numbers of optimizers and schedulers that are used, and the hyper-parameters that are used in place of
            the script's.
        """
        state, loaded, self._loaded = self._state, self._loaded, None
        made = self.note_made(trainer)
        if state is None:
            return made, {}
        if state.ended is None and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._between_passes = True  # saved by another callback after a pass's last batch
        if self._saved is not None and Part.RANDOMNESS not in self._parts:
            internals.set_global_seed(self._saved.seed)
        trainer.should_stop = trainer.should_stop or state.stopped_early
        if loaded is None:
            return made, {}
        if not in_shards(loaded):
            restore_rounded(internals.module_state(trainer), loaded["state_dict"])
            for optimizer, saved in zip(trainer.optimizers, loaded["optimizer_states"], strict=False):
                restore_dtypes(optimizer, saved)
            self._new_weights = frozenset(internals.module_state(trainer).keys() - loaded["state_dict"].keys())
        self.verdicts = [*evidence.after_loading(trainer, loaded, self._ended), *self._before_loading]
        file, script = ScriptValues.in_file(state.made, loaded), ScriptValues.of(trainer, made)
        self._differing, unused = compare(file, script, self._parts)
        from_script.end_schedules(trainer, state, self._parts)
        return from_script.used(made, state.made, self._parts), unused

    def epoch_of_loaders(self, trainer: Trainer, *, validation: bool) -> float:
        """The epoch in which the run has made the loaders that are about to be made; infinite: they are new here."""
        state = self._state
        if state is None or Part.DATA in self._parts:
            return math.inf
        made = state.reloaded_epochs["validation" if validation else "training"]
        is_late = validation and self._validation_pending and not internals.reloads(trainer, made)
        return made if self.is_starting or is_late else math.inf

    def on_training_loaders(self, trainer: Trainer, loader: CombinedLoader) -> bool:
        """Track the positions in the training loaders, whose iterators are not made yet, and restore them.

        Returns:
            Whether the run resumes, so that Lightning has nothing to restore.
        """
        if Part.RANDOMNESS in self._parts and self._script_rng is None:
            self._script_rng = rng.capture()  # the order of the data is drawn from the file's states
        positions = track_positions(loader)
        if self._ended is not None and not self._has_started:
            epoch, rest = internals.epochs_done(trainer), self._rest(trainer, positions)
            for position, saved in zip(positions, self._here.training, strict=False):
                # Between passes only a state of their own: Lightning begins one pass now, another with the epoch.
                if not self._between_passes or follows_from(trainer, position, saved):
                    position.resume_at(saved, epoch, inside=not self._between_passes, rest=rest)
                fetches = saved.fetch_rng is not None and not self._between_passes and len(positions) == 1
                position.expect(saved, more=fetches and not was_last(trainer, self._state), idle=self._is_over)
        return self._state is not None

    def _rest(self, trainer: Trainer, positions: Sequence[LoaderPosition]) -> dealing.Rest | None:
        """The rest of the pass, if it began on another number of ranks."""
        state, saved = self._state, self._here
        if state is None or self._between_passes:
            return None
        rest = dealing.rest(trainer, [it.loader for it in positions], saved.training, len(state.ranks))
        if rest is not None:
            self._state, self._saved = dealing.go_on(trainer, rest, positions[0].loader, state, saved)
        return rest

    @property
    def position(self) -> Position | None:
        """Where the run resumes, as its batches are counted now."""
        return None if self._state is None else self._state.position

    def on_validation_loaders(self, trainer: Trainer, loader: CombinedLoader) -> None:
        """Track the positions in the validation loaders; restore their generators and their persistent workers."""
        positions = track_positions(loader)
        if self._state is None or trainer.sanity_checking:
            return
        if not self._rng_pending and internals.reloads(trainer, self._state.reloaded_epochs["validation"]):
            self._validation_pending = False  # the uninterrupted run made new ones here, too
        if self._validation_pending:
            if self._has_started:
                self._judge_late(trainer, positions)
            for position, saved in zip(positions, self._here.validation, strict=False):
                position.start_persistent_workers(saved)
            if not self._rng_pending:
                self._restore_validation(positions)

    def _judge_late(self, trainer: Trainer, positions: Sequence[LoaderPosition]) -> None:
        """Judge validation loaders that are made after the report."""
        verdicts = list(loader_verdict.of_validation(self._here.validation, positions))
        new = [verdict for verdict in verdicts if verdict not in self.verdicts]
        self.verdicts += from_script.judged(new, self._parts)
        report.say_late(trainer, new, strict=self._is_strict)

    def on_train_start(self, trainer: Trainer, initial_modes: Mapping[str, Sequence[str]], *, strict: bool) -> float:
        """Before the first hook of training: restore a window's gradients, running means, shown values and metrics.

        Returns:
            Training time in seconds since the last save that ``train_time_interval`` asked for.

        Raises:
            ResumeError: If ``strict`` and the resume is not exact, if the file's counters disagree, or if its
                optimizers are of other classes.
        """
        state = self._state
        if state is None:
            return 0.0
        self._is_strict = strict
        report.check_position(trainer, state)
        self.verdicts += gradient_sums.restore(trainer, state.sums, len(state.ranks))
        self._restore_training_state(trainer, state)
        self.verdicts += report.when_resumed(trainer, state, self._saved, self._ended)
        self.verdicts += [difference.verdict() for difference in self._differing]
        self.verdicts = from_script.judged(self.verdicts, self._parts)
        self.verdicts = report.of_all_ranks(trainer, self.verdicts)
        report.announce(trainer, state.position, self.verdicts, strict=strict)
        module_state.log_differences(initial_modes, state.initial_modes)
        return state.seconds

    def _restore_training_state(self, trainer: Trainer, state: RunState) -> None:
        self._has_started = True
        module_state.restore_gradients(trainer.lightning_module, state.gradients)
        self._state = replace(state, gradients={})  # the fit has its own now
        if self._ended == Ended.BATCH:
            logged.restore(trainer, self._here.logged)
        elif self._ended == Ended.EPOCH:
            logged.restore_shown(trainer, self._here.logged)
        if self._ended is not None:
            logged.restore_metrics(trainer.lightning_module, self._here.metrics)
            rank_buffers.restore(trainer, self._here.buffers)

    def before(self, trainer: Trainer, ended: Ended) -> bool:
        """Before the next batch (``BATCH``) or epoch (``EPOCH``): restore the generators and modes, once.

        Returns:
            Whether they were restored in this call.
        """
        state, self.is_starting = self._state, False
        if state is None or ended != self._ended or not self._rng_pending:
            return False
        self._rng_pending = False
        internals.set_reloaded_epochs(trainer, state.reloaded_epochs)
        for position, saved in zip(positions_of(internals.training_loader(trainer)), self._here.training, strict=False):
            position.restore_generators(saved, include_samplers=ended == Ended.EPOCH)
        validation = internals.validation_loader(trainer)
        if validation is not None:
            self._restore_validation(positions_of(validation))
        module_state.restore_modes(trainer.lightning_module, state.module_modes, new=self._new_weights)
        if ended == Ended.BATCH:
            module_state.restore_accumulation(trainer)
        rng.restore(self._script_rng or self._here.random)
        if self._script_rng is None:
            module_rng.restore(trainer.lightning_module, self._here.generators)
        return True

    @property
    def expects_same(self) -> bool:
        """Whether the resumed run is expected to be the same to the last bit."""
        return all(verdict.level in (Level.EXACT, Level.FROM_FILE) for verdict in self.verdicts)

    def on_train_end(self, trainer: Trainer, position: Position) -> None:
        """Before the hooks of the training's end: if nothing was left to train, restore the final state, and say so."""
        if self._state is None or position != self._state.position:
            return
        if self._ended is not None:
            self.before(trainer, self._ended)
        report.announce_finished(trainer, position, self._differing)

    @property
    def _is_over(self) -> bool:
        """Whether a whole epoch had ended: only then does Lightning surely begin another pass for the next one."""
        return self._state is not None and self._state.ended == Ended.EPOCH and self._ended == Ended.EPOCH

    @property
    def _here(self) -> RankState:
        """The state of this rank; only called if there is one."""
        assert self._saved is not None
        return self._saved

    def _restore_validation(self, positions: Sequence[LoaderPosition]) -> None:
        self._validation_pending = False
        for position, saved in zip(positions, self._here.validation, strict=False):
            position.restore_generators(saved, include_samplers=True)
