"""How exactly the position in each training loader resumes, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume import owned_rng
from checkpointable.resume.loader_position import LoaderPosition
from checkpointable.resume.loaders import positions_of
from checkpointable.resume.state import LoaderState


def when_saved(trainer: Trainer) -> list[Verdict]:
    """What the file that is being saved inside a pass cannot restore exactly, on any machine."""
    found = []
    for name, position in _named(trainer):
        found += [Verdict(name, Level.APPROXIMATE, why) for why in _inexact_kind(position)]
    return found


def when_resumed(trainer: Trainer, saved: Sequence[LoaderState], *, inside: bool) -> Iterator[Verdict]:
    """What these loaders cannot restore exactly; ``inside``: the run resumes inside a pass."""
    positions = _named(trainer)
    for (name, position), before in zip(positions, saved, strict=False):
        for why in _differences(position, before, inside=inside):
            yield Verdict(name, Level.APPROXIMATE, why)
    expected, present = len(saved), len(positions)
    if expected != present:
        why = f"{expected} train loaders when saved, {present} now"
        yield Verdict("position in the data", Level.LOST, why)


def _named(trainer: Trainer) -> list[tuple[str, LoaderPosition]]:
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
