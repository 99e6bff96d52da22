"""The report before the first resumed batch: what resumes exactly, what approximately, what is lost, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelPruning, StochasticWeightAveraging
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader

from checkpointable._errors import ResumeError
from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import logged
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.position import Ended
from checkpointable.resume import owned_rng
from checkpointable.resume.loader_position import LoaderPosition
from checkpointable.resume.loaders import positions_of
from checkpointable.resume.state import LoaderState, RankState, RunState


@dataclass(frozen=True)
class Finding:
    """Something that does not resume exactly: it is ``"approximate"`` or ``"lost"``."""

    level: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.level} ({self.why})"


def exactness(findings: Sequence[Finding]) -> str:
    """``"exact"``, or the findings in one line."""
    return "; ".join(map(str, findings)) or "exact"


def when_saved(trainer: Trainer, state: RunState, saved: RankState | None) -> list[Finding]:
    """What the file that is being saved cannot restore exactly, on any machine."""
    if saved is None:
        lost = "optimizers, schedulers, randomness, position in the data"
        return [Finding("lost", lost, "the file holds weights only")]
    found = [*_not_at_safe_point(state), *_callbacks(trainer)]
    for name, position in _positions(trainer) if state.ended != Ended.EPOCH else ():
        found += [Finding("approximate", name, why) for why in _inexact_kind(position)]
    return found


def announce(trainer: Trainer, state: RunState, saved: RankState | None, ended: Ended | None, *, strict: bool) -> None:
    """Log where the run resumes, and how exactly.

    Raises:
        ResumeError: If the optimizers are of other classes, or if ``strict`` and something is not exact.
    """
    settings = capture_settings(trainer)
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
) -> Iterator[Finding]:
    """What this fit, with these settings, cannot restore exactly from the file."""
    if saved is None:
        why = f"the file has {len(state.ranks)} ranks, this training has {trainer.world_size}"
        yield Finding("lost", f"randomness and position in the data of rank {trainer.global_rank}", why)
        return
    inside = ended == Ended.BATCH
    if inside:
        yield from _not_at_safe_point(state)
    yield from _callbacks(trainer)
    if len(state.ranks) != trainer.world_size:
        why = f"{len(state.ranks)} ranks when saved, {trainer.world_size} now"
        yield Finding("approximate", "which rank sees which sample", why)
    for name, was in state.settings.items():
        now = settings.get(name, was)
        if now != was:
            yield Finding("approximate", name, f"{was or 'none'} when saved, {now or 'none'} now")
    for name in saved.metrics.keys() - {name for name, _ in logged.metrics_of(trainer.lightning_module)}:
        yield Finding("lost", f"metric {name!r}", "the module has no metric of that name")
    positions = _positions(trainer)
    for (name, position), before in zip(positions, saved.training, strict=False):
        for why in _differences(position, before, inside=inside):
            yield Finding("approximate", name, why)
    expected, present = len(saved.training), len(positions)
    if expected != present:
        yield Finding("lost", "position in the data", f"{expected} train loaders when saved, {present} now")


def _not_at_safe_point(state: RunState) -> Iterator[Finding]:
    if state.ended is None:
        yield Finding("approximate", "everything", "saved inside a batch, by your code or another callback")
    elif state.fetching:
        yield Finding(
            "approximate", "randomness", "an exception was raised while the next batch was fetched or prepared"
        )


def _callbacks(trainer: Trainer) -> Iterator[Finding]:
    for callback in trainer_callbacks.callbacks(trainer):
        if isinstance(callback, (StochasticWeightAveraging, ModelPruning)):
            yield Finding("approximate", type(callback).__name__, "Lightning restores it only in part")


def _positions(trainer: Trainer) -> list[tuple[str, LoaderPosition]]:
    positions = positions_of(internals.training_loader(trainer))
    return [("train loader" if len(positions) == 1 else f"train loader {i}", it) for i, it in enumerate(positions)]


def _differences(position: LoaderPosition, was: LoaderState, *, inside: bool) -> Iterator[str]:
    """In what a loader differs from the saved one, and why it cannot resume exactly ``inside`` a pass."""
    now = position.state(consumed_only=False)
    if was.length != now.length:
        yield f"{was.length} batches when saved, {now.length} now"
    if was.batch_size != now.batch_size:
        yield f"{was.batch_size} samples a batch when saved, {now.batch_size} now"
    if was.sampler != now.sampler:
        yield f"ordered by {was.sampler} when saved, by {now.sampler} now"
    if was.has_workers != now.has_workers:
        had, has = ("with", "without") if was.has_workers else ("without", "with")
        yield f"{had} worker processes when saved, {has} now: they draw other random numbers"
    if inside and position.has_own_state and was.own_state is None:
        yield "it keeps its own position, and the file has none for it: its batches are read again and dropped"
    if inside:
        yield from _inexact_kind(position)


def _inexact_kind(position: LoaderPosition) -> Iterator[str]:
    """Why this kind of loader cannot resume exactly inside a pass, if it cannot."""
    loader = position.loader
    is_torch = isinstance(loader, DataLoader)
    iterable = is_torch and not position.is_indexed
    kind = type(loader.dataset if iterable else loader).__name__
    if position.has_own_state:
        if iterable and loader.num_workers and (loader.persistent_workers or position.carries_state):
            yield f"{kind} is read by workers that keep its position: they resume there with other random numbers"
    elif not is_torch:
        yield f"{kind} has no index: its batches are read again and dropped, exact if they are the same again"
    elif iterable:
        yield f"{kind} has no index: its batches are read again and dropped, exact if they come in the same order"
    elif position.indices is None:
        yield f"{kind} has an __iter__ of its own: its batches are read again and dropped, exact if they are the same"
    elif loader.num_workers and any(at.startswith("collate_fn.") for at in owned_rng.capture(loader)):
        yield "its collate_fn has a random generator of its own, whose state stays in the worker processes"


_ARGUMENTS = (
    *("precision", "gradient_clip_val", "gradient_clip_algorithm", "val_check_interval", "check_val_every_n_epoch"),
    *("limit_train_batches", "limit_val_batches", "overfit_batches", "reload_dataloaders_every_n_epochs"),
)


def capture_settings(trainer: Trainer) -> dict[str, Any]:
    """The trainer's arguments that decide how to train and when to validate, the optimizers and the schedulers.

    Not among them is how long to train (``max_epochs``, ``max_steps``, ``max_time``): it may grow.
    """
    found = {name: str(getattr(trainer, name)) for name in _ARGUMENTS}
    if trainer.gradient_clip_val is not None:
        found["gradient_clip_val"] = str(float(trainer.gradient_clip_val))  # 1 means 1.0 here, unlike in the others
    schedules = [it for it in trainer_callbacks.callbacks(trainer) if isinstance(it, GradientAccumulationScheduler)]
    found["accumulate_grad_batches"] = str(schedules[0].scheduling if schedules else trainer.accumulate_grad_batches)
    found["optimizers"] = ", ".join(type(optimizer).__name__ for optimizer in trainer.optimizers)
    configs = trainer.lr_scheduler_configs
    every = [f"{type(it.scheduler).__name__} every {it.frequency} {it.interval}" for it in configs]
    found["lr_schedulers"] = ", ".join(every)
    return found


def _check_optimizers(trainer: Trainer, was: str | None, now: str) -> None:
    """Refuse optimizers of other classes: the saved state would make their first step fail with an obscure error."""
    if was and was != now:
        raise ResumeError(
            f"cannot resume from {trainer.ckpt_path}: it holds the state of {was}, and configure_optimizers gives"
            f" {now or 'none'}. Use the same optimizers again, or start a new run from the weights:"
            f" {type(trainer.lightning_module).__name__}.load_from_checkpoint(...)."
        )
