"""The report before the first resumed batch: what goes on exactly, what approximately, what is lost, each with why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelPruning, StochasticWeightAveraging
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader, IterableDataset

from checkpointable._errors import ResumeError
from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import logged
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.position import Ended
from checkpointable.resume import owned_rng, settings
from checkpointable.resume.loader_position import LoaderPosition, carries_state, has_own_state
from checkpointable.resume.loaders import ObservedLoader
from checkpointable.resume.state import LoaderState, RankState, RunState

EXACT = "exact"
_IN_PART = (StochasticWeightAveraging, ModelPruning)


@dataclass(frozen=True)
class Finding:
    """One thing that does not go on exactly.

    Attributes:
        level: ``"approximate"`` or ``"lost"``.
        what: The thing.
        why: The reason.
    """

    level: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.level} ({self.why})"


def exactness(findings: Sequence[Finding]) -> str:
    """``"exact"``, or what is not."""
    return "; ".join(str(finding) for finding in findings) or EXACT


def when_saved(trainer: Trainer, state: RunState, saved: RankState | None) -> list[Finding]:
    """What a file being written cannot bring back exactly, on any machine."""
    if saved is None:
        return [
            Finding("lost", "optimizers, schedulers, randomness, places in the data", "the file holds weights only")
        ]
    found = [*_moment(state), *_callbacks(trainer)]
    for name, position in _positions(internals.training_loader(trainer)) if state.ended != Ended.EPOCH else ():
        found += _inexact_kind(name, position)
    return found


def when_resumed(trainer: Trainer, state: RunState, saved: RankState | None, ended: Ended | None) -> list[Finding]:
    """What of a file does not come back exactly, here and now."""
    if saved is None:
        why = f"the file has {len(state.ranks)} ranks, this training {trainer.world_size}"
        return [Finding("lost", f"randomness and places in the data of rank {trainer.global_rank}", why)]
    inside = ended == Ended.BATCH
    found = [*(_moment(state) if inside else ()), *_callbacks(trainer)]
    if len(state.ranks) != trainer.world_size:
        why = f"{len(state.ranks)} ranks when saved, {trainer.world_size} now"
        found.append(Finding("approximate", "which rank sees which sample", why))
    for name, was, now in settings.changed(trainer, state.settings):
        found.append(Finding("approximate", name, f"{was} when saved, {now} now"))
    positions = _positions(internals.training_loader(trainer))
    metrics = {name for name, _ in logged.metrics_of(trainer.lightning_module)}
    for name in saved.metrics.keys() - metrics:
        found.append(Finding("lost", f"metric {name!r}", "the module has none of that name yet"))
    for (name, position), then in zip(positions, saved.training, strict=False):
        found += _compare(name, position, then)
        found += _inexact(name, position, then) if inside else ()
    expected, present = len(saved.training), len(positions)
    if expected != present:
        found.append(Finding("lost", "places in the data", f"{expected} train loaders when saved, {present} now"))
    return found


def _moment(state: RunState) -> list[Finding]:
    """What the moment at which a file was taken has to do with it."""
    if state.ended is None:
        return [Finding("approximate", "everything", "written by hand or by another callback, inside a batch")]
    if state.fetching:
        return [Finding("approximate", "randomness", "an exception came when the next batch was fetched or prepared")]
    return []


def _callbacks(trainer: Trainer) -> Iterator[Finding]:
    for callback in trainer_callbacks.callbacks(trainer):
        if isinstance(callback, _IN_PART):
            yield Finding("approximate", type(callback).__name__, "Lightning brings it back only in part")


def announce(trainer: Trainer, state: RunState, findings: Sequence[Finding], *, strict: bool) -> None:
    """Say where a resumed run goes on, and how exactly.

    Raises:
        ResumeError: If ``strict`` and something is not exact.
    """
    if findings and strict:
        details = "\n  ".join(map(str, findings))
        raise ResumeError(
            f"cannot resume {type(trainer.lightning_module).__name__} from {trainer.ckpt_path} exactly"
            f" (strict_resume=True).\n  {details}\nResume with strict_resume=False to go on at the same batch"
            " number, or restore what it was saved with."
        )
    at = state.position
    rank_zero_info(
        f"checkpointable: goes on after epoch {at.epoch}, batch {at.batch} of {trainer.num_training_batches},"
        f" step {at.step}, from {trainer.ckpt_path}: {exactness(findings)}"
    )


def _compare(name: str, position: LoaderPosition, was: LoaderState) -> Iterator[Finding]:
    now = position.state(consumed_only=False)
    if was.length != now.length:
        yield Finding("approximate", name, f"{was.length} batches when saved, {now.length} now")
    if was.batch_size != now.batch_size:
        yield Finding("approximate", name, f"{was.batch_size} samples a batch when saved, {now.batch_size} now")
    if was.sampler != now.sampler:
        yield Finding("approximate", name, f"ordered by {was.sampler} when saved, by {now.sampler} now")
    if was.has_workers != now.has_workers:
        with_or_without = "with" if was.has_workers else "without"
        yield Finding(
            "approximate", name, f"{with_or_without} worker processes when saved: they have randomness of their own"
        )


def _inexact(name: str, position: LoaderPosition, was: LoaderState) -> Iterator[Finding]:
    if has_own_state(position.loader) and was.own_state is None:
        yield Finding("approximate", name, "it keeps its own place, and the file has none for it; it is read forward")
    yield from _inexact_kind(name, position)


def _inexact_kind(name: str, position: LoaderPosition) -> Iterator[Finding]:
    """Kinds of loader that do not come back exactly from inside a pass."""
    loader = position.loader
    iterable = isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset)
    kind = type(loader.dataset if iterable else loader).__name__
    why = None
    if has_own_state(loader):
        if iterable and loader.num_workers and (loader.persistent_workers or carries_state(loader)):
            why = f"{kind} is read by workers that keep its place: that comes back, and not their randomness"
    elif not isinstance(loader, DataLoader):
        why = f"{kind} has no index: it is read forward, and exact if it gives the same batches again"
    elif iterable:
        why = f"{kind} has no index: its batches are read again and dropped, and exact if they come in the same order"
    elif loader.num_workers and any(at.startswith("collate_fn.") for at in owned_rng.capture(loader)):
        why = "its collate_fn has a random generator of its own, which lives in the worker processes"
    if why is not None:
        yield Finding("approximate", name, why)


def _positions(loader: Any) -> list[tuple[str, LoaderPosition]]:
    positions = loader.positions if isinstance(loader, ObservedLoader) else []
    return [("train loader" if len(positions) == 1 else f"train loader {i}", s) for i, s in enumerate(positions)]
