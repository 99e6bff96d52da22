"""What goes into a checkpoint under our key: the state that an exact resume needs, and the metadata of the file."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from datetime import timedelta
from typing import Any

import lightning
import torch
from lightning.pytorch import Trainer

from checkpointable._version import __version__
from checkpointable.catalog.metadata import FileMetadata, Score
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.options import Options
from checkpointable.policy.reasons import Reason, kind_of
from checkpointable.resume import accumulated_gradients, module_modes, rank_state, settings
from checkpointable.resume.loaders import may_have_drawn
from checkpointable.resume.report import exactness, when_saved
from checkpointable.resume.state import RunState
from checkpointable.saving.monitor import scalars
from checkpointable.saving.save_task import SaveRequest


def complete(trainer: Trainer, state: RunState, *, in_window: bool, weights_only: bool) -> RunState:
    """The state that a session knows of, with what the trainer and its module hold. Collective: every rank calls it.

    Args:
        trainer: Of the fit.
        state: What the session knows.
        in_window: Whether gradients are being accumulated.
        weights_only: Whether to leave out what each rank needs for a resume.
    """
    at_safe_point = state.ended is not None
    has_gradients = in_window or (at_safe_point and accumulated_gradients.outlive_batches(trainer))
    for_resuming = not weights_only and internals.is_fitting(trainer)
    return replace(
        state,
        gradients=accumulated_gradients.collect(trainer.lightning_module) if has_gradients else {},
        settings=settings.capture(trainer),
        module_modes=module_modes.capture(trainer.lightning_module),
        stopped_early=internals.stopped_early(trainer),
        reloaded_epochs=internals.reloaded_epochs(trainer),
        fetching=state.fetching and may_have_drawn(internals.training_loader(trainer)),
        ranks=tuple(rank_state.gather(trainer, consumed_only=at_safe_point)) if for_resuming else (),
    )


def describe(
    trainer: Trainer,
    state: RunState,
    request: SaveRequest | None,
    options: Options,
    resumed_from: str | None,
    *,
    weights_only: bool,
) -> FileMetadata:
    """What a file with this state states about itself; ``request`` is ``None`` if the session did not ask for it."""
    reasons = frozenset({Reason.MANUAL}) if request is None else request.reasons
    score = None if request is None else request.score
    return FileMetadata(
        kind=kind_of(reasons),
        reasons=tuple(sorted(reasons)),
        run_id=state.run_id,
        lineage=state.lineage,
        epoch=state.position.epoch,
        batch=state.position.batch,
        step=state.position.step,
        batches=state.position.batches,
        ended=state.ended,
        metrics=scalars(trainer.callback_metrics) if request is None else request.metrics,
        score=None if score is None else Score(monitor=str(options.monitor), mode=options.mode, value=score),
        base_name=None if request is None else request.base_name,
        resumed_from=resumed_from,
        exactness=exactness(when_saved(trainer, state, state.ranks[trainer.global_rank] if state.ranks else None)),
        weights_only=weights_only,
        versions={
            "checkpointable": __version__,
            "lightning": lightning.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    )


def make_arguments_loadable(checkpoint: dict[str, Any]) -> None:
    """Turn our arguments among the saved hyper-parameters into types that ``weights_only=True`` loads.

    A path becomes a string. A ``timedelta`` is left out: it says how to train, and the module can be built without it.
    """
    saved = checkpoint.get("hyper_parameters", {})
    for name in Options.__dataclass_fields__:
        if isinstance(saved.get(name), os.PathLike):
            saved[name] = os.fspath(saved[name])
        elif isinstance(saved.get(name), timedelta):
            del saved[name]
