"""The buckets in which DDP sums gradients over the ranks: read, and given back to a new process.

DDP starts with its parameters in one order, and sorts them into buckets once, in the order in which the gradients of
its first backward were ready. With three or more ranks the place in its bucket decides in which order a gradient is
summed over the ranks, and so how the sum is rounded. All of this is private to torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from checkpointable.lightning_internals.names import OF_DDP, OF_TORCH

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

Buckets = Sequence[Sequence[int]]
_GIVEN = "_checkpointable_buckets"


def wrapper(trainer: Trainer) -> DistributedDataParallel | None:
    """The module inside DDP; ``None`` if the strategy does not use DDP."""
    model = trainer.strategy.model
    return model if isinstance(model, DistributedDataParallel) else None


def missing(ddp: Any = None) -> str:
    """The first of the names that this version of torch lacks, and DDP if it is given; ``""`` if it has all."""
    for path in OF_TORCH:
        try:
            reduce(getattr, path.split("."), torch)
        except AttributeError:
            return f"torch.{path}"
    absent = (f"DistributedDataParallel.{name}" for name in OF_DDP if ddp is not None and not hasattr(ddp, name))
    return next(absent, "")


def never_sorts(ddp: Any) -> bool:
    """Whether the buckets stay as they are made, the same in each process."""
    fixed = ddp._use_python_reducer or ddp._delay_all_reduce_all_params
    return bool(fixed or (ddp.find_unused_parameters and not ddp.static_graph))


def buckets(ddp: Any) -> Buckets:
    """The sorted buckets: the indices of their parameters. Empty if they are not sorted yet. Collective.

    DDP sorts them at the beginning of the next forward. This is done now, which changes no number. Not inside a batch.
    """
    found = _recorded(ddp)
    if not found:
        ddp.reducer._rebuild_buckets()
        ddp.reducer.prepare_for_forward()  # counts an iteration: torch records nothing before the first one
        ddp.logger.set_runtime_stats_and_log()
        found = _recorded(ddp)
    return found or made_with(ddp)


def description(ddp: Any) -> str:
    """What decides which buckets DDP starts with, and whether it sorts them."""
    found = {name: getattr(ddp, name) for name in ("find_unused_parameters", "static_graph", "bucket_bytes_cap")}
    found["parameters"] = int(ddp._get_ddp_logging_data()["num_parameter_tensors"])
    return ", ".join(f"{name}={value}" for name, value in found.items())


def sort(ddp: Any, order: Buckets) -> Buckets:
    """Sort the buckets as they were, before the first batch; return what they are now. Collective.

    DDP sees one backward in which the gradients are ready in this order. No parameter takes part in it, so that none of
    the user's hooks is called. The sum of no gradients is zero; these zeros are removed.
    """
    reducer, start = ddp.reducer, torch.zeros((), requires_grad=True)
    before = {weight: weight.grad for weight in ddp.module.parameters()}

    def report_ready(_: torch.Tensor) -> None:
        for index in (index for bucket in order for index in bucket):
            reducer._autograd_hook(index)

    start.register_hook(report_ready)  # type: ignore[no-untyped-call]
    reducer.prepare_for_forward()
    reducer.prepare_for_backward([])
    start.backward()  # type: ignore[no-untyped-call]
    for weight, gradient in before.items():
        weight.grad = gradient
    return buckets(ddp)


def will_share_buffers(trainer: Trainer) -> bool:
    """Whether all ranks get the buffers of rank 0 before the next batch, or keep none of their own."""
    model = wrapper(trainer)
    return model is None or bool(model.will_sync_module_buffers())  # type: ignore[no-untyped-call]


def keep_buffers(trainer: Trainer) -> None:
    """Let each rank keep its buffers in the next batch. (DDP decides it anew with every batch.)"""
    model = wrapper(trainer)
    if model is not None:
        model.require_forward_param_sync = False


def make_with(trainer: Trainer, order: Buckets) -> None:
    """Let the strategy make DDP with these buckets, where it cannot sort them before the first batch: a static graph.

    With another number of parameters, DDP makes its own.
    """
    strategy: Any = trainer.strategy
    original = strategy._setup_model

    def setup_model(model: torch.nn.Module) -> DistributedDataParallel:
        del strategy._setup_model  # of this instance
        made, used = _with_assignment(lambda: original(model), order)
        if used:
            setattr(made, _GIVEN, order)
        return made

    strategy._setup_model = setup_model


def made_with(ddp: Any) -> Buckets:
    """The buckets that ``make_with`` has given; empty if it has not."""
    given: Buckets = getattr(ddp, _GIVEN, ())
    return given


def has_static_graph(trainer: Trainer) -> bool:
    """Whether the strategy will make DDP with a static graph."""
    return bool(getattr(trainer.strategy, "_ddp_kwargs", {}).get("static_graph"))


def _with_assignment(
    make: Callable[[], DistributedDataParallel], order: Buckets
) -> tuple[DistributedDataParallel, bool]:
    """Make DDP while torch is given these buckets, and return it with whether it has taken them."""
    distributed: Any = torch.distributed
    original, used = distributed._compute_bucket_assignment_by_size, []

    def assign(parameters: Sequence[Any], limits: Sequence[int], *rest: Any) -> tuple[Any, Any]:
        if sorted(index for bucket in order for index in bucket) != list(range(len(parameters))):
            return original(parameters, limits, *rest)  # type: ignore[no-any-return]
        used.append(True)
        return [list(bucket) for bucket in reversed(order)], [limits[-1]] * len(order)  # DDP reverses them again

    distributed._compute_bucket_assignment_by_size = assign
    try:
        return make(), bool(used)
    finally:
        distributed._compute_bucket_assignment_by_size = original


def _recorded(ddp: Any) -> Buckets:
    """What torch has recorded, in a form like ``"1 0 7, 3 2"``."""
    text = str(ddp._get_ddp_logging_data().get("rebuilt_per_bucket_param_indices") or "")
    return tuple(tuple(map(int, bucket.split())) for bucket in text.split(",") if bucket.strip())
