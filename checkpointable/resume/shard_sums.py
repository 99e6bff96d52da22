"""A sum over each tensor that lies in parts on the ranks, the same for any number of them.

Each element counts by its bits and its place in the whole tensor, modulo 2**64: so the sums of the parts add up to that
of the whole, and a tensor that is parted in another way has the same sum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from checkpointable.lightning_internals import model_parallel
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.verdict import Level, Verdict

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ELEMENTS = 1 << 17  # at a time
_SHOWN = 3


def of_rank(shards: Mapping[str, Any], rank: int, buffers: Collection[str]) -> dict[str, int]:
    """The sums over what this rank has.

    Args:
        shards: What ``model_parallel.take_shards`` took.
        rank: A tensor that each rank has whole counts on rank 0 alone.
        buffers: The names of those in ``state_dict`` that differ from rank to rank, which are left out.
    """
    left_out = {f"state_dict.{name}" for name in buffers}
    return {name: _of(it, rank) for name, it in model_parallel.tensors(shards) if name not in left_out}


def total(of_ranks: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sums over the whole tensors, by those of all ranks."""
    found: dict[str, int] = {}
    for sums in of_ranks:
        for name, value in sums.items():
            found[name] = (found.get(name, 0) + value) % (1 << 64)
    return found


def rank_buffers(trainer: Trainer) -> set[str]:
    """The names of the buffers that each rank has whole, and that may differ from rank to rank."""
    if trainer.world_size == 1:
        return set()
    buffers = trainer.lightning_module.named_buffers()
    return {name for name, buffer in buffers if model_parallel.as_parted(buffer) is None}


def judged(trainer: Trainer, saved: Mapping[str, int]) -> Verdict:
    """Whether weights and optimizers are as they were when these sums were taken. Collective."""
    states = [internals.optimizer_state(trainer, optimizer) for optimizer in trainer.optimizers]
    shards = model_parallel.take_shards({"state_dict": internals.module_state(trainer), "optimizer_states": states})
    of_ranks: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(of_ranks, of_rank(shards, trainer.global_rank, rank_buffers(trainer)))
    now = total(of_ranks)
    part = "weights, optimizers"
    wrong = sorted(name for name in saved.keys() | now.keys() if saved.get(name) != now.get(name))
    if not wrong:
        return Verdict(part, Level.EXACT, "read back as in the shards")
    others = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return Verdict(part, Level.APPROXIMATE, f"{', '.join(wrong[:_SHOWN])}{others}: not as in the shards after loading")


def _of(tensor: torch.Tensor, rank: int) -> int:
    parted = model_parallel.as_parted(tensor)
    if parted is None:
        return 0 if rank else _sum(tensor, [0] * tensor.dim(), tensor.shape)
    mesh = parted.device_mesh
    coordinate: Sequence[int] = mesh.get_coordinate() or ()
    same = any(at for at, placement in zip(coordinate, parted.placements, strict=True) if placement.is_replicate())
    if same or not (mesh.mesh == 0).any():  # another rank has the same part, in this mesh or in a like one
        return 0
    chunks = parted.__create_chunk_list__()  # type: ignore[no-untyped-call]
    offsets = list(chunks[0].offsets) if chunks else [0] * tensor.dim()
    return _sum(parted.to_local(), offsets, tensor.shape)


def _sum(part: torch.Tensor, offsets: Sequence[int], shape: Sequence[int]) -> int:
    """The sum over a part that begins at these places of a whole of this shape."""
    part, offsets, shape = part.detach(), list(offsets), list(shape)
    if part.is_complex():
        part, offsets, shape = torch.view_as_real(part.resolve_conj()), [*offsets, 0], [*shape, 2]
    if not shape:
        part, offsets, shape = part.reshape(1), [0], [1]
    bits = part.contiguous().view(_AS_INTEGERS[part.element_size()])
    steps = [math.prod(shape[dimension + 1 :]) for dimension in range(len(shape))]
    rows = max(_ELEMENTS // max(math.prod(part.shape[1:]), 1), 1)
    found = 0
    for start in range(0, part.shape[0], rows):
        block = bits[start : start + rows]
        begins = [offsets[0] + start, *offsets[1:]]
        ranges = (torch.arange(b, b + size, device=block.device) for b, size in zip(begins, block.shape, strict=True))
        places: torch.Tensor = sum(  # type: ignore[assignment]  # of at least one dimension
            (at * step).reshape([-1, *itertools.repeat(1, block.dim() - 1 - dimension)])
            for dimension, (at, step) in enumerate(zip(ranges, steps, strict=True))
        )
        found += int((block.to(torch.int64) * (2 * places + 1)).sum())  # odd, so that no bit is lost
    return found % (1 << 64)
