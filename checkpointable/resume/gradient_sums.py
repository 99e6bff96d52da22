"""In which order gradients are summed over the ranks: saved, restored, and judged.

The sum of two ranks is the same in any order, so nothing is done for one or two. DDP sorts its buckets; see
``lightning_internals.ddp``. Where the model itself is parted, the order follows from how it is parted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checkpointable.lightning_internals import ddp, model_parallel
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume.state import GradientSums

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch.nn.parallel import DistributedDataParallel

_PART = "gradient sums"


def capture(trainer: Trainer, *, at_safe_point: bool) -> GradientSums | None:
    """How they are summed now; ``None`` for one or two ranks. Collective."""
    if trainer.world_size <= 2:
        return None
    if model_parallel.parts_model(trainer):
        return GradientSums(made=model_parallel.description(trainer))
    model, why = _asked(trainer)
    if model is None:
        return GradientSums(unknown=why)
    made = ddp.description(model)
    if ddp.never_sorts(model):
        return GradientSums(made=made)
    if not at_safe_point:
        return GradientSums(made=made, unknown="saved inside a batch, where DDP cannot be asked for its buckets")
    buckets = ddp.buckets(model)
    late = "saved before DDP had sorted the buckets of its static graph, for which it needs two batches"
    return GradientSums(made=made, buckets=buckets, unknown=late if model.static_graph and not buckets else "")


def prepare(trainer: Trainer, saved: GradientSums | None, ranks: int) -> None:
    """Before DDP is made: let a static graph start with the saved buckets, as DDP sorts it late."""
    asked = saved is not None and saved.buckets and trainer.world_size == ranks
    if saved is not None and asked and ddp.has_static_graph(trainer) and not ddp.missing():
        ddp.make_with(trainer, saved.buckets)


def restore(trainer: Trainer, saved: GradientSums | None, ranks: int) -> Iterator[Verdict]:
    """Before the first batch: let DDP sum as it did, and judge whether it does. Collective."""
    if trainer.world_size <= 2 or trainer.world_size != ranks:
        return
    if saved is not None and model_parallel.parts_model(trainer):
        now = model_parallel.description(trainer)
        yield (
            Verdict(_PART, Level.EXACT, "the model is parted as it was")
            if now == saved.made
            else Verdict(_PART, Level.APPROXIMATE, f"the model was parted by {saved.made or 'DDP'}, it is by {now} now")
        )
        return
    model, why = _asked(trainer)
    if model is None or saved is None or saved.unknown:
        why = why or ("the file does not say in which order" if saved is None else saved.unknown)
        yield Verdict(_PART, Level.APPROXIMATE, why)
        return
    made = ddp.description(model)
    if made != saved.made:
        yield Verdict(_PART, Level.APPROXIMATE, f"DDP had {saved.made} when saved, it has {made} now")
    elif not saved.buckets:
        yield Verdict(_PART, Level.EXACT, "DDP starts with the buckets that it had")
    else:
        buckets = ddp.made_with(model) if model.static_graph else ddp.sort(model, saved.buckets)
        same = tuple(map(tuple, buckets)) == tuple(map(tuple, saved.buckets))
        why = f"DDP's buckets {'read back as' if same else 'are not those'} in the file"
        yield Verdict(_PART, Level.EXACT if same else Level.APPROXIMATE, why)


def when_saved(saved: GradientSums | None) -> Iterator[Verdict]:
    """How exactly the file that is being saved lets DDP sum as it does."""
    if saved is not None:
        why = saved.unknown or "how they are summed is in the file"
        yield Verdict(_PART, Level.APPROXIMATE if saved.unknown else Level.EXACT, why)


def _asked(trainer: Trainer) -> tuple[DistributedDataParallel | None, str]:
    """The module inside DDP if it can be asked for its buckets, and else why not."""
    model = ddp.wrapper(trainer)
    if model is None:
        return None, f"{type(trainer.strategy).__name__} sums the gradients in an order that is not known"
    missing = ddp.missing(model)
    if missing:
        return None, f"this version of torch has no {missing}, by which DDP is asked for its buckets"
    return model, ""
