"""The rest of a pass, dealt to another number of ranks than the pass began with.

``DistributedSampler`` draws one order for all ranks, and deals it out: of N ranks, rank r gets every N-th sample from r
on. So what the ranks have consumed after the same number of batches is the beginning of that order, and any number of
ranks can be dealt the rest, each sample once. litData and MosaicML Streaming do so for data sets of their own formats.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from checkpointable.lightning_internals import loops
from checkpointable.resume import rng
from checkpointable.resume.state import Dealt, LoaderState, OrderRng, RankState, RunState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


@dataclass(frozen=True)
class Rest:
    """The rest of a pass for one rank.

    Attributes:
        batches: Of indices.
        skip: How many of them the rank has trained already, on this number of ranks.
        dealt: How the rest was dealt; it goes into the files that are saved in this pass.
        change: What changed with the number of ranks, in words; ``""`` if the number did not change.
    """

    batches: Sequence[Sequence[int]]
    skip: int
    dealt: Dealt
    change: str = ""

    @property
    def delivered(self) -> int:
        """The number of batches before the next one, as Lightning counts in this pass."""
        return self.dealt.batches + self.skip


def number_of_ranks() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def of_loader(loader: Any, ranks: int) -> Dealt | None:
    """How a pass over this loader is dealt to so many ranks from its beginning on; ``None`` if that is not known."""
    if not isinstance(loader, DataLoader) or type(loader.batch_sampler) is not BatchSampler or not loader.batch_size:
        return None
    sampler: Any = loader.sampler
    kind = type(sampler)
    if kind is DistributedSampler and sampler.num_replicas == ranks:
        return Dealt(samples=len(sampler.dataset), shuffled=sampler.shuffle, seed=sampler.seed, epoch=sampler.epoch)
    if ranks > 1 or kind not in (RandomSampler, SequentialSampler):
        return None  # each rank has an order of its own
    samples = len(sampler.data_source)
    if kind is SequentialSampler:
        return Dealt(samples=samples, shuffled=False)
    is_plain = not sampler.replacement and sampler.generator is None and sampler.num_samples == samples
    return Dealt(samples=samples, shuffled=True) if is_plain else None


def rest(trainer: Trainer, loaders: Sequence[Any], saved: Sequence[LoaderState], ranks: int) -> Rest | None:
    """The rest of the pass that was interrupted on so many ranks, for this rank.

    ``None`` if it needs no dealing, as the pass has always been on this number of ranks. Also if it cannot be dealt:
    there are several loaders, another data set, a sampler whose order is not known, or a limit of batches.
    """
    if len(loaders) != 1 or len(saved) != 1 or trainer.limit_train_batches != 1.0:
        return None
    loader, was, now = loaders[0], saved[0], of_loader(loaders[0], trainer.world_size)
    if was.dealt is None or now is None or now.samples != was.dealt.samples or was.batch_size is None:
        return None
    changed = ranks != trainer.world_size
    if not changed and not was.dealt.taken:
        return None
    before = was.delivered - was.dealt.batches
    taken = was.dealt.taken + (before * was.batch_size * ranks if changed else 0)
    left = order(was.dealt, was.order_rng)[taken:]
    batches = deal(left, trainer.global_rank, trainer.world_size, loader.batch_size, drop_last=loader.drop_last)
    dealt = replace(was.dealt, taken=min(taken, now.samples))
    if not changed:
        return Rest(batches, before, dealt)
    samples = was.batch_size * ranks, loader.batch_size * trainer.world_size
    change = (
        f"goes on after {dealt.taken} of {now.samples} samples of this epoch, with each of the others once;"
        f" {samples[0]} samples a batch of all ranks when saved, {samples[1]} now;"
        f" {was.length} batches an epoch when saved, {len(loader)} now, and schedulers by step follow the batches"
    )
    return Rest(batches, 0, replace(dealt, batches=len(loader) - len(batches)), change)


def go_on(trainer: Trainer, rest: Rest, loader: Any, state: RunState, saved: RankState) -> tuple[RunState, RankState]:
    """Count the batches of the pass by those that are left; return the states from which a rank resumes so."""
    loops.set_batches_done(trainer, rest.delivered)
    now = replace(saved.training[0], delivered=rest.delivered, length=len(loader), full=None)
    position = replace(state.position, batch=rest.delivered)
    return replace(state, position=position), replace(saved, training=(now,))


def order(dealt: Dealt, drawn_from: OrderRng | None) -> list[int]:
    """The order of all samples in the pass, of which the ranks get their parts."""
    indices = range(dealt.samples)
    if not dealt.shuffled:
        return list(indices)
    if dealt.seed is None:
        assert drawn_from is not None  # the file was saved inside a pass
        with rng.isolated(drawn_from.global_rng):
            return list(RandomSampler(indices))
    sampler: Any = DistributedSampler(indices, num_replicas=1, rank=0, seed=dealt.seed)  # type: ignore[arg-type]
    sampler.set_epoch(dealt.epoch)
    return list(sampler)


def deal(left: Sequence[int], rank: int, ranks: int, batch_size: int, *, drop_last: bool) -> list[list[int]]:
    """The batches of one rank. As in ``DistributedSampler``, the first samples fill up the last round of all ranks.

    Where ``drop_last`` would leave none, there is one smaller batch, so that the epoch ends with a batch as always.
    """
    padded = [*left, *itertools.islice(itertools.cycle(left), -len(left) % ranks)]
    mine = padded[rank::ranks]
    return list(BatchSampler(mine, batch_size, drop_last)) or [mine]
