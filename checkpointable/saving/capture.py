"""What a run puts into a checkpoint under our key, whoever writes it, and what the file tells about itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer

from checkpointable.lightning_internals import trainer as internals
from checkpointable.resume import accumulated_gradients, module_modes, rank_state, settings, state
from checkpointable.resume.loaders import may_have_drawn
from checkpointable.resume.report import exactness, when_saved
from checkpointable.saving.kept_files import stem
from checkpointable.saving.scheduler import scalars

if TYPE_CHECKING:
    from checkpointable.saving.session import Run


def of(run: Run, trainer: Trainer, *, weights_only: bool) -> dict[str, Any]:
    """The state of a run at this moment. Collective: every rank calls it."""
    order = run.desk.order
    window = order is not None and (run.steps.in_window(trainer) or accumulated_gradients.outlive_batches(trainer))
    ranks = not weights_only and internals.is_fitting(trainer)
    now = state.State(
        run_id=run.run_id,
        position=run.position,
        safe_point=None if order is None else run.safe_point,
        best_val_loss=run.best_val_loss,
        seconds=time.monotonic() - run.clock,
        gradients=accumulated_gradients.collect(trainer.lightning_module) if window else {},
        stepped=run.steps.stepped,
        settings=settings.capture(trainer),
        modes=module_modes.capture(trainer.lightning_module),
        made=run.made,
        stopped_early=internals.stopped_early(trainer),
        reloaded_epochs=internals.reloaded_epochs(trainer),
        fetching=order is not None and run.fetching and may_have_drawn(internals.training_loader(trainer)),
        generation=run.generation,
        line=run.line,
        logged=sorted(run.judge.seen),
        ranks=rank_state.gather(trainer, settled=order is not None) if ranks else (),
    )
    return now.to_dict(_described(run, trainer, now, weights_only=weights_only))


def _described(run: Run, trainer: Trainer, now: state.State, *, weights_only: bool) -> dict[str, Any]:
    order, options = run.desk.order, run.options
    score = None if order is None else order.score
    here = now.ranks[trainer.global_rank] if now.ranks else {}
    return state.describe(
        now,
        reasons={"manual"} if order is None else order.reasons,
        metrics=scalars(trainer.callback_metrics) if order is None else order.metrics,
        score=None if score is None else {"monitor": options.monitor, "mode": options.mode, "value": score},
        stem=None if order is None else stem(options, order),
        resumed_from=run.saver.resumed_from,
        weights_only=weights_only,
        exactness=exactness(when_saved(trainer, now, here)),
    )
