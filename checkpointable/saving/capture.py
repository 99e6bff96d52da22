"""What a run puts into a checkpoint under our key, whoever writes it, and what the file tells about itself."""

from __future__ import annotations

import os
import platform
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.pytorch import Trainer

from checkpointable._version import __version__
from checkpointable.catalog.metadata import FileMetadata, Score
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.options import Options
from checkpointable.policy.reasons import Reason, kind_of
from checkpointable.resume import accumulated_gradients, module_modes, rank_state, settings, state
from checkpointable.resume.loaders import may_have_drawn
from checkpointable.resume.report import exactness, when_saved
from checkpointable.saving.kept_files import base_name
from checkpointable.saving.scheduler import scalars

if TYPE_CHECKING:
    from checkpointable.saving.session import Run


def of(run: Run, trainer: Trainer, *, weights_only: bool) -> dict[str, Any]:
    """The state of a run at this moment. Collective: every rank calls it."""
    order = run.desk.order
    window = order is not None and (run.steps.in_window(trainer) or accumulated_gradients.outlive_batches(trainer))
    ranks = not weights_only and internals.is_fitting(trainer)
    now = state.RunState(
        run_id=run.run_id,
        position=run.position,
        ended=None if order is None else run.safe_point,
        best_val_loss=run.best_val_loss,
        seconds=time.monotonic() - run.clock,
        gradients=accumulated_gradients.collect(trainer.lightning_module) if window else {},
        stepped=run.steps.stepped,
        settings=settings.capture(trainer),
        modes=module_modes.capture(trainer.lightning_module),
        initial_modes=run.made,
        stopped_early=internals.stopped_early(trainer),
        reloaded_epochs=internals.reloaded_epochs(trainer),
        fetching=order is not None and run.fetching and may_have_drawn(internals.training_loader(trainer)),
        lineage=run.lineage,
        logged_names=sorted(run.judge.seen),
        ranks=tuple(rank_state.gather(trainer, settled=order is not None)) if ranks else (),
    )
    return {**now.to_dict(), "metadata": _described(run, trainer, now, weights_only=weights_only).to_dict()}


def _described(run: Run, trainer: Trainer, now: state.RunState, *, weights_only: bool) -> FileMetadata:
    order, options = run.desk.order, run.options
    reasons = [Reason.MANUAL] if order is None else sorted(map(Reason, order.reasons))
    score = None if order is None else order.score
    return FileMetadata(
        kind=kind_of(reasons),
        reasons=tuple(reasons),
        run_id=now.run_id,
        lineage=now.lineage,
        epoch=now.position.epoch,
        batch=now.position.batch,
        step=now.position.step,
        batches=now.position.batches,
        ended=now.ended,
        metrics=scalars(trainer.callback_metrics) if order is None else order.metrics,
        score=None if score is None else Score(monitor=str(options.monitor), mode=options.mode, value=score),
        base_name=None if order is None else base_name(options, order),
        resumed_from=run.saver.resumed_from,
        exactness=exactness(when_saved(trainer, now, now.ranks[trainer.global_rank] if now.ranks else None)),
        weights_only=weights_only,
        versions={
            "checkpointable": __version__,
            "lightning": lightning.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    )


def make_arguments_loadable(checkpoint: dict[str, Any]) -> None:
    """Our arguments among the saved hyper-parameters, in types that ``weights_only=True`` reads.

    A path becomes a string. A ``timedelta`` has no such type, and is left out: what it governs is how to train, and not
    how to build the module.
    """
    saved = checkpoint.get("hyper_parameters", {})
    for name in Options.__dataclass_fields__:
        if isinstance(saved.get(name), os.PathLike):
            saved[name] = os.fspath(saved[name])
        elif isinstance(saved.get(name), timedelta):
            del saved[name]
