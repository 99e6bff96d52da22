"""How exactly the position in each loader resumes, and on what evidence.

A loader is exact only if its state was put back and found the same, or if the order of its samples is drawn from states
that the file holds, and it was seen to read them so. Whatever else it is, nothing shows that its batches are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

from torch.utils.data import DataLoader

from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.position import Ended
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume.loader_position import LoaderPosition
from checkpointable.resume.loaders import positions_of
from checkpointable.resume.owned_rng import IN_DATA, MOST
from checkpointable.resume.state import LoaderState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_T = TypeVar("_T")
_SPLIT = {"indices": ", as a split that is drawn without a fixed seed does"}


def when_saved(trainer: Trainer, ended: Ended | None) -> list[Verdict]:
    """How exactly each loader can resume from the file that is being saved after a batch or an epoch."""
    found, inside = [], ended != Ended.EPOCH
    for name, position in _named(positions_of(internals.training_loader(trainer)), "train loader"):
        state = position.state(consumed_only=ended is not None)
        found.append(_verdict(name, _of_kind(position, state, inside=inside), "the file holds what it resumes from"))
    for name, position in _named(positions_of(internals.validation_loader(trainer)), "validation loader"):
        found.append(_of_validation(name, position.state(consumed_only=False)))
    return found


def when_resumed(
    trainer: Trainer, saved: Sequence[LoaderState], validation: Sequence[LoaderState], *, inside: bool
) -> Iterator[Verdict]:
    """How exactly each loader resumes from its saved state; ``inside``: the run resumes inside a pass.

    Where the loaders of the validation are made only later, theirs tell what the file shows.
    """
    positions = positions_of(internals.training_loader(trainer))
    for (name, position), was in zip(_named(positions, "train loader"), saved, strict=False):
        if position.rest is not None and position.rest.change:
            yield Verdict(name, Level.APPROXIMATE, position.rest.change)
            continue
        now = position.state(consumed_only=False)
        reasons = [*_differences(was, now), *_of_kind(position, was, inside=inside)]
        reasons += [*_other_generators(position, was), *_not_put_back(position, was, now, inside=inside)]
        by_state = "it gave its saved state back when it was asked again"
        by_order = "its batches are drawn in their order again from the saved states"
        yield _verdict(name, reasons, by_state if position.own.of_loader else by_order)
    yield from of_validation(validation, positions_of(internals.validation_loader(trainer)))
    if len(saved) != len(positions):
        why = f"{len(saved)} train loaders when saved, {len(positions)} now"
        yield Verdict("position in the data", Level.LOST, why)


def of_validation(saved: Sequence[LoaderState], positions: Sequence[LoaderPosition]) -> Iterator[Verdict]:
    """How exactly each validation loader resumes from its saved state; no ``positions``: they are not made yet."""
    if saved and positions and len(saved) != len(positions):
        why = f"{len(saved)} when saved, {len(positions)} now"
        yield Verdict("validation loaders", Level.APPROXIMATE, why)
    for (name, was), position in zip_longest(_named(saved, "validation loader"), positions[: len(saved)]):
        yield _of_validation(name, was, position)


def _named(found: Sequence[_T], name: str) -> list[tuple[str, _T]]:
    return [(name if len(found) == 1 else f"{name} {number}", it) for number, it in enumerate(found)]


def _verdict(name: str, reasons: Iterable[str], evidence: str) -> Verdict:
    found = list(dict.fromkeys(reasons))
    return Verdict(name, Level.APPROXIMATE, ", ".join(found)) if found else Verdict(name, Level.EXACT, evidence)


def _differences(was: LoaderState, now: LoaderState) -> Iterator[str]:
    """In what a loader differs from the saved one."""
    if was.length != now.length:
        yield f"{was.length} batches when saved, {now.length} now"
    if was.batch_size != now.batch_size:
        yield f"{was.batch_size} samples a batch when saved, {now.batch_size} now"
    if was.length == now.length:  # else it has other samples anyway
        yield from _other_data(was, now)
    if was.sampler != now.sampler:
        yield f"ordered by {was.sampler} when saved, by {now.sampler} now"
    if was.has_workers != now.has_workers:
        had, has = ("with", "without") if was.has_workers else ("without", "with")
        yield f"{had} worker processes when saved, {has} now: they draw other random numbers"


def _other_data(was: LoaderState, now: LoaderState) -> Iterator[str]:
    if was.samples != now.samples:
        yield f"{was.samples} when saved, {now.samples} now"
        return
    for at in sorted(was.data_digests.keys() & now.data_digests.keys()):
        if was.data_digests[at] != now.data_digests[at]:
            yield f"{at} differs from that when saved" + _SPLIT.get(at.rpartition(".")[2], "")


def _of_kind(position: LoaderPosition, state: LoaderState, *, inside: bool) -> Iterator[str]:
    """Why a loader of this kind, seen as it was in this state, cannot be known to resume exactly."""
    loader, own = position.loader, position.own
    kind = type(loader.dataset if isinstance(loader, DataLoader) and not position.is_indexed else loader).__name__
    if own.of_loader:
        yield from _of_own_state(position, state, kind, inside=inside)
    elif not isinstance(loader, DataLoader):
        yield f"{kind} has no index: " + _read_again("they are the same again", inside=inside)
    elif not position.is_indexed:
        yield f"{kind} has no index: " + _read_again("they come in the same order", inside=inside)
    elif state.in_step is None:
        yield f"{kind} has an __iter__ of its own: " + _read_again("they are the same", inside=inside)
    elif not state.in_step:
        yield f"{kind} reads other batches of its data than it gives, so that their order is not known"
    elif own.of_data and not own.in_process:
        yield f"{type(loader.dataset).__name__} keeps a state, which stays in the worker processes"
    if state.has_late_generators:
        yield "its workers make random generators at their first batch, which then has other random numbers"
    if not position.order.owners.is_complete:
        yield f"the search for random generators stopped after {MOST} objects"
    for unknown in state.held_unknown:
        yield f"{unknown}, which cannot be saved"
    for at in state.shared if inside else ():
        yield f"{at}, a random generator, is drawn from elsewhere, too, so that the order cannot be drawn again"


def _read_again(condition: str, *, inside: bool) -> str:
    if inside:
        return f"its batches are read again and dropped, exact if {condition}"
    return f"its next pass begins anew, exact if {condition.removesuffix(' again')} whatever was read before"


def _of_own_state(position: LoaderPosition, state: LoaderState, kind: str, *, inside: bool) -> Iterator[str]:
    own = position.own
    if state.own_state is None:
        yield "it keeps its own position, and the file has none for it: its batches are read again and dropped"
    if own.is_torchdata and not own.in_process and (own.of_data or position.loader.persistent_workers):
        yield f"{kind} is read by workers that keep its position: they resume there with other random numbers"
    elif own.is_torchdata and not own.of_data:
        yield f"{kind} has no index: " + _read_again("they come in the same order", inside=inside)
    elif state.first_draws and inside:
        yield f"{kind} draws random numbers for its first batch, where it may also draw its order"


def _other_generators(position: LoaderPosition, was: LoaderState) -> Iterator[str]:
    owners = position.order.owners
    for at in sorted({*owners.made, *owners.missing(was.own_rng)}):
        waits = at in owners.made or at.startswith(IN_DATA)
        yield f"{at}, a random generator, does not exist " + ("yet: its state waits for it" if waits else "here")
    for at in sorted(owners.capture().keys() - was.own_rng.keys()):
        yield f"{at}, a random generator, was not there when saved"


def _not_put_back(position: LoaderPosition, was: LoaderState, now: LoaderState, *, inside: bool) -> Iterator[str]:
    """What was put back and is not found the same again, as far as a loader can be asked."""
    own = position.own
    if own.is_torchdata and not own.of_data:
        pass  # its state says nothing of its data
    elif was.own_state is not None and own.returned is None:
        yield "its pass had not ended when the file was saved, and nothing shows where the next one starts"
    elif was.own_state is not None and not own.returned:
        yield "it was given its saved state, and gave another one back"
    if was.in_step is not None and now.in_step is None and not own.of_loader:
        yield "it does not read the batches of indices that are drawn for it"
    yield from _other_held(was, now, {} if inside else was.held)  # between passes, restored when the next one starts


def _other_held(was: LoaderState, now: LoaderState, restored: Mapping[str, Any]) -> Iterator[str]:
    """What samplers hold that is not as it was saved, apart from what is restored."""
    for at in sorted(now.held_digests.keys() | was.held_digests.keys()):
        if at not in restored and now.held_digests.get(at) != was.held_digests.get(at):
            yield f"{at} is another one than when saved"


def _of_validation(name: str, was: LoaderState, position: LoaderPosition | None = None) -> Verdict:
    """Validations read whole passes, each with the generators and samplers as the one before left them."""
    is_indexed = was.sampler and "_InfiniteConstantSampler" not in was.sampler
    reasons = [f"{unknown}, which cannot be saved" for unknown in was.held_unknown]
    if not was.in_step and not (is_indexed and was.passes == 0):  # not read yet: as the script makes it
        reasons.append("it has no index of its own, and nothing shows that its passes are the same again")
    if was.has_late_generators:
        reasons.append("its workers make random generators at their first batch")
    if position is not None:
        now = position.state(consumed_only=False)
        reasons += [*_differences(was, now), *_other_generators(position, was), *_other_held(was, now, was.held)]
    return _verdict(name, reasons, "its order is drawn from the saved states")
