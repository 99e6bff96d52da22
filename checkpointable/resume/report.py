"""The report before the first resumed batch: what resumes exactly, what approximately, what is lost, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelPruning, StochasticWeightAveraging
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from checkpointable._errors import ResumeError
from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import logged
from checkpointable.policy.position import Ended
from checkpointable.policy.verdict import Level, Verdict, exactness
from checkpointable.resume import loader_verdict
from checkpointable.resume.settings import settings_of
from checkpointable.resume.state import RankState, RunState


def when_saved(trainer: Trainer, state: RunState, saved: RankState | None) -> list[Verdict]:
    """What the file that is being saved cannot restore exactly, on any machine."""
    if saved is None:
        lost = "optimizers, schedulers, randomness, position in the data"
        return [Verdict(lost, Level.LOST, "the file holds weights only")]
    found = [*_not_at_safe_point(state), *_callbacks(trainer)]
    if state.ended != Ended.EPOCH:
        found += loader_verdict.when_saved(trainer)
    return found


def announce(trainer: Trainer, state: RunState, saved: RankState | None, ended: Ended | None, *, strict: bool) -> None:
    """Log where the run resumes, and how exactly.

    Raises:
        ResumeError: If the optimizers are of other classes, or if ``strict`` and something is not exact.
    """
    settings = settings_of(trainer)
    _check_optimizers(trainer, state.settings.get("optimizers"), settings["optimizers"])
    findings = list(_when_resumed(trainer, state, saved, ended, settings))
    if findings and strict:
        details = "\n  ".join(map(str, findings))
        raise ResumeError(
            f"cannot resume {type(trainer.lightning_module).__name__} from {trainer.ckpt_path} exactly"
            f" (strict_resume=True).\n  {details}\nResume with strict_resume=False to go on at the same batch"
            " number, or restore what it was saved with."
        )
    at = state.position
    rank_zero_info(
        f"checkpointable: resumes after epoch {at.epoch}, batch {at.batch} of {trainer.num_training_batches},"
        f" step {at.step}, from {trainer.ckpt_path}: {exactness(findings)}"
    )


def _when_resumed(
    trainer: Trainer, state: RunState, saved: RankState | None, ended: Ended | None, settings: dict[str, Any]
) -> Iterator[Verdict]:
    """What this fit, with these settings, cannot restore exactly from the file."""
    if saved is None:
        why = f"the file has {len(state.ranks)} ranks, this training has {trainer.world_size}"
        yield Verdict(f"randomness and position in the data of rank {trainer.global_rank}", Level.LOST, why)
        return
    inside = ended == Ended.BATCH
    if inside:
        yield from _not_at_safe_point(state)
    yield from _callbacks(trainer)
    if len(state.ranks) != trainer.world_size:
        why = f"{len(state.ranks)} ranks when saved, {trainer.world_size} now"
        yield Verdict("which rank sees which sample", Level.APPROXIMATE, why)
    for name, was in state.settings.items():
        now = settings.get(name, was)
        if now != was:
            yield Verdict(name, Level.APPROXIMATE, f"{was or 'none'} when saved, {now or 'none'} now")
    for name in saved.metrics.keys() - {name for name, _ in logged.metrics_of(trainer.lightning_module)}:
        yield Verdict(f"metric {name!r}", Level.LOST, "the module has no metric of that name")
    yield from loader_verdict.when_resumed(trainer, saved.training, inside=inside)


def _not_at_safe_point(state: RunState) -> Iterator[Verdict]:
    if state.ended is None:
        yield Verdict("everything", Level.APPROXIMATE, "saved inside a batch, by your code or another callback")
    elif state.fetching:
        yield Verdict(
            "randomness", Level.APPROXIMATE, "an exception was raised while the next batch was fetched or prepared"
        )


def _callbacks(trainer: Trainer) -> Iterator[Verdict]:
    for callback in trainer_callbacks.callbacks(trainer):
        if isinstance(callback, (StochasticWeightAveraging, ModelPruning)):
            yield Verdict(type(callback).__name__, Level.APPROXIMATE, "Lightning restores it only in part")


def _check_optimizers(trainer: Trainer, was: str | None, now: str) -> None:
    """Refuse optimizers of other classes: the saved state would make their first step fail with an obscure error."""
    if was and was != now:
        raise ResumeError(
            f"cannot resume from {trainer.ckpt_path}: it holds the state of {was}, and configure_optimizers gives"
            f" {now or 'none'}. Use the same optimizers again, or start a new run from the weights:"
            f" {type(trainer.lightning_module).__name__}.load_from_checkpoint(...)."
        )
