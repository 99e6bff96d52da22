"""The progress of a run, and how it is written under our key of a checkpoint and read from there."""

from __future__ import annotations

import math
import platform
import uuid
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from checkpointable._version import __version__
from checkpointable.catalog.info import Confirmation, FileMetadata, Score
from checkpointable.lightning_internals import finders, logged, loggers
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.tree import version_of
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.options import Options
from checkpointable.policy.position import Ended, Position
from checkpointable.policy.reasons import Reason, kind_of
from checkpointable.policy.verdict import exactness
from checkpointable.resume import (
    gradient_sums,
    loaders,
    module_rng,
    module_state,
    parameter_names,
    rank_buffers,
    report,
    rng,
)
from checkpointable.resume.frozen_part import FrozenPart, combined_checksum
from checkpointable.resume.settings import settings_of
from checkpointable.resume.state import RankState, RunState, packed
from checkpointable.saving.monitor import scalars
from checkpointable.saving.save_task import SaveRequest, base_name
from checkpointable.saving.steps import Steps

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Progress:
    """The progress of a run.

    Attributes:
        position: After the last batch that is completely over.
        counted: After the batch whose validation is running or due; ``None`` if there is none.
        initial_modes: The modes of the module as the script made it; see ``module_state``.
        made: The numbers of optimizers and schedulers as they were made; see ``script_values``.
        unused: Hyper-parameters of the script that are not used, with the values that are.
        in_window: Whether an accumulation window was open there.
        is_consistent: Whether the state is that of ``position``, with nothing begun since.
        is_fetching: Whether the next batch is being fetched, which may draw from the random generators.
    """

    def __init__(self) -> None:
        self.run_id, self.lineage = uuid.uuid4().hex[:12], Lineage.begin()
        self.position = Position()
        self.ended: Ended | None = None  # at the last safe point
        self.best_val_loss = math.inf
        self.initial_modes: Mapping[str, list[str]] = {}
        self.made: Mapping[str, Any] = {}
        self.unused: Mapping[str, Any] = {}
        self.in_window = self.is_consistent = self.is_fetching = False
        self.counted: Position | None = None
        self.steps, self.frozen_part = Steps(), FrozenPart()

    def count(self, trainer: Trainer) -> Position:
        """The position after the batch that is trained now. It is counted once, also if a validation follows."""
        if self.counted is None:
            self.counted = self.steps.count(trainer, self.position)
        return self.counted

    def ahead(self, trainer: Trainer) -> Progress:
        """The progress after that batch. This one moves only after the validation that the batch triggers."""
        position, ahead = self.count(trainer), copy(self)
        loaders.mark_consumed(internals.training_loader(trainer))
        ahead.reach(trainer, Ended.BATCH, position)
        return ahead

    def reach(self, trainer: Trainer, ended: Ended, position: Position) -> None:
        """Note that a safe point is reached."""
        self.ended, self.position, self.counted = ended, position, None
        self.in_window = self.steps.in_window(trainer)
        self.is_consistent, self.is_fetching = True, False

    def note_val_loss(self, trainer: Trainer) -> None:
        """Update ``best_val_loss`` with what the validation that is ending has logged."""
        value = internals.logged_now(trainer).get("val_loss")
        if value is not None and value.numel() == 1:
            self.best_val_loss = min(self.best_val_loss, float(value))

    def capture(
        self, trainer: Trainer, *, at_safe_point: bool, seconds: float, logged_names: Iterable[str], weights_only: bool
    ) -> RunState:
        """The run's state for a checkpoint; ``at_safe_point``: for one that the session saves. Collective."""
        module = trainer.lightning_module
        keeps_gradients = self.in_window or module_state.gradients_outlive_batches(trainer)
        drawn = self.is_fetching and loaders.may_have_drawn(internals.training_loader(trainer))
        for_resuming = not weights_only and internals.is_fitting(trainer)
        parameters = parameter_names.names_of(trainer)
        return RunState(
            run_id=self.run_id,
            lineage=self.lineage,
            position=self.position,
            ended=self.ended if at_safe_point else None,
            best_val_loss=self.best_val_loss,
            seconds=seconds,
            gradients=module_state.capture_gradients(module) if at_safe_point and keeps_gradients else {},
            stepped=self.steps.stepped,
            settings=settings_of(trainer, parameters),
            made=self.made,
            parameters=parameters,
            module_modes=module_state.capture_modes(module),
            initial_modes=self.initial_modes,
            stopped_early=internals.stopped_early(trainer),
            reloaded_epochs=internals.reloaded_epochs(trainer),
            fetching=at_safe_point and drawn,
            logged_names=sorted(logged_names),
            found=finders.found(trainer),
            loggers=loggers.states(trainer) if trainer.is_global_zero else (),
            sums=gradient_sums.capture(trainer, at_safe_point=at_safe_point) if for_resuming else None,
            ranks=packed(_gather(trainer, consumed_only=at_safe_point)) if for_resuming else (),
        )

    def request(
        self, trainer: Trainer, reasons: frozenset[Reason], score: float | None, options: Options
    ) -> SaveRequest:
        """What is asked of a save of the present state. It is named by the latest of all that was logged."""
        score, latest = score if Reason.BEST in reasons else None, scalars(trainer.callback_metrics)
        return SaveRequest(
            run_id=self.run_id,
            lineage=self.lineage,
            position=self.position,
            reasons=reasons,
            score=score,
            weights_only=options.holds_weights_only(reasons),
            base_name=base_name(options, self.position, latest, is_best=score is not None),
        )

    def name_what_is_used(self, checkpoint: dict[str, Any]) -> None:
        """Set the hyper-parameters in a checkpoint to the values that are used, where the script's are not."""
        for key in ("hyper_parameters", "datamodule_hyper_parameters"):
            used = {name: value for name, value in self.unused.items() if name in checkpoint.get(key, {})}
            if used:
                checkpoint[key] = copy(checkpoint[key])  # a configuration object may be the module's own
                checkpoint[key].update(used)

    def take_over(self, state: RunState, *, resumes: bool) -> None:
        """Take over the numbers of a checkpoint; if the run ``resumes`` from it, a new attempt begins."""
        self.run_id, self.position, self.best_val_loss = state.run_id, state.position, state.best_val_loss
        self.ended = state.ended
        self.lineage = state.lineage.resume(state.position.batches) if resumes else state.lineage
        self.steps.stepped = state.stepped[0], state.stepped[1]


def describe(
    trainer: Trainer,
    state: RunState,
    request: SaveRequest | None,
    options: Options,
    resumed_from: str | None,
    confirmation: Confirmation | None,
    *,
    metrics: Mapping[str, float],
    weights_only: bool,
) -> FileMetadata:
    """The metadata of a file with this state; ``request`` is ``None`` if the user or another callback saves it."""
    reasons = frozenset({Reason.MANUAL}) if request is None else request.reasons
    score = None if request is None else request.score
    verdicts = report.when_saved(trainer, state, state.ranks[0] if state.ranks else None)
    return FileMetadata(
        kind=kind_of(reasons),
        reasons=tuple(sorted(reasons)),
        run_id=state.run_id,
        lineage=state.lineage,
        **asdict(state.position),
        ended=state.ended,
        metrics=metrics,
        score=None if score is None else Score(monitor=str(options.monitor), mode=options.mode, value=score),
        base_name=None if request is None else request.base_name,
        resumed_from=resumed_from,
        confirmation=confirmation,
        exactness=exactness(verdicts),
        verdicts=tuple(verdicts),
        weights_only=weights_only,
        loggers=tuple(state.loggers),
        frozen_checksum=combined_checksum(state.left_out),
        versions={
            "checkpointable": __version__,
            **version_of(trainer),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    )


def _gather(trainer: Trainer, *, consumed_only: bool) -> list[RankState]:
    """The states of all ranks on rank 0, elsewhere the own one. ``consumed_only``: the data are of the safe point."""
    mine = RankState(
        random=rng.capture(),
        seed=internals.global_seed(),
        training=loaders.states(internals.training_loader(trainer), consumed_only=consumed_only),
        validation=loaders.states(internals.validation_loader(trainer), consumed_only=False),
        logged=logged.capture(trainer),
        metrics=logged.capture_metrics(trainer.lightning_module),
        buffers=rank_buffers.capture(trainer),
        generators=module_rng.capture(trainer.lightning_module),
    )
    if trainer.world_size == 1:
        return [mine]
    of_all: list[Any] = [None] * trainer.world_size
    torch.distributed.gather_object(mine, of_all if trainer.is_global_zero else None)
    return of_all if trainer.is_global_zero else [mine]
