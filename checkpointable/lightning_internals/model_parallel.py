"""The strategy that parts a model over the ranks, ``ModelParallelStrategy``: how it saves, and what its tensors are."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch

from checkpointable.lightning_internals.tree import is_a

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch.distributed.tensor import DTensor


def parts_model(trainer: Trainer) -> bool:
    """Whether the strategy parts the weights over the ranks. It reads checkpoints by itself."""
    return is_a(trainer.strategy, "ModelParallelStrategy")


def saves_in_shards(trainer: Trainer) -> bool:
    """Whether the strategy saves a directory, in which each rank writes what it has."""
    strategy: Any = trainer.strategy
    return parts_model(trainer) and bool(strategy._save_distributed_checkpoint)


def description(trainer: Trainer) -> str:
    """How the model is parted: over which ranks, and which of its modules gather their weights together."""
    from torch.distributed import fsdp

    strategy: Any = trainer.strategy
    module = trainer.lightning_module
    kind: Any = getattr(fsdp, "FSDPModule", ())  # since torch 2.6
    together = [name for name, part in module.named_modules() if isinstance(part, kind)]
    parted = [(name, as_parted(weight)) for name, weight in module.named_parameters()]
    placed = [(name, None if it is None else (str(it.placements), *it.shape)) for name, it in parted]
    found = sha256(repr((together, placed)).encode()).hexdigest()[:8]
    return f"{strategy.device_mesh}, {len(together)} modules, {found}"


def trained_apart(trainer: Trainer) -> list[str]:
    """The trained parameters that nothing keeps equal: the script has not parted them, so each rank steps its own."""
    strategy: Any = trainer.strategy
    if not parts_model(trainer) or strategy.device_mesh["data_parallel"].size() == 1:
        return []
    weights = trainer.lightning_module.named_parameters()
    return [name for name, weight in weights if weight.requires_grad and not _is_parted_by_data(weight)]


def _is_parted_by_data(weight: torch.Tensor) -> bool:
    """Whether its parts lie on the ranks that have different samples. A mesh without names is taken for that."""
    parted = as_parted(weight)
    return parted is not None and "data_parallel" in (parted.device_mesh.mesh_dim_names or ("data_parallel",))


def take_shards(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Take out of a checkpoint what lies in shards, under the names by which the strategy reads it."""
    taken = {"state_dict": checkpoint.pop("state_dict")}
    states = checkpoint.pop("optimizer_states", [])
    return {**taken, **{f"optimizer_{number}": state for number, state in enumerate(states)}}


def tensors(shards: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that ``take_shards`` has taken, with a name for each."""
    for part, held in shards.items():
        states = {"": held} if part == "state_dict" else held["state"]
        for name, state in states.items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    yield ".".join(filter(None, (part, name, key))), value


def as_parted(tensor: Any) -> DTensor | None:
    """A tensor that lies in parts on the ranks; ``None`` if this one does not."""
    module = sys.modules.get("torch.distributed.tensor")  # without which there is none; importing it takes a while
    return tensor if module is not None and isinstance(tensor, module.DTensor) else None


def of_rank(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that lies on this rank; all of it if it does not lie in parts."""
    parted = as_parted(tensor)
    return tensor if parted is None else parted.to_local()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with all of its parts, on the CPU if it has any. Collective for one that lies in parts."""
    parted = as_parted(tensor)
    return tensor if parted is None else parted.full_tensor().cpu()


def parted_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor, which each rank has, in parts as another one."""
    parted = as_parted(like)
    if parted is None:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, parted.device_mesh, parted.placements)
