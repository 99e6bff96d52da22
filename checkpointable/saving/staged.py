"""What a save writes: the snapshot that it takes at once, what is copied while training continues, and how."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from checkpointable._errors import CheckpointableWarning
from checkpointable.lightning_internals import model_parallel
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.checkpoint_io import DurableCheckpointIO
from checkpointable.policy.names import KEY
from checkpointable.policy.options import Options
from checkpointable.policy.reasons import PERIODIC
from checkpointable.saving import users_io
from checkpointable.saving.save_task import SaveRequest
from checkpointable.saving.shards import StagedShards
from checkpointable.saving.steps import changed_only_by_steps
from checkpointable.storage.direct import UNIT, keep_no_blocks
from checkpointable.storage.staging.buffer import StagingBuffer
from checkpointable.storage.staging.rotation import MOST
from checkpointable.storage.staging.snapshot import Snapshot
from checkpointable.storage.store import Store

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


@dataclass(frozen=True, kw_only=True)
class Staged:
    """What a save writes.

    Attributes:
        snapshot: Of all but shards; ``None`` if the user's ``CheckpointIO`` writes the file.
        write: Makes the file durable, called as ``write(path, overwrite=...)``.
        size: In bytes, ``None`` if unknown.
    """

    snapshot: Snapshot | None
    write: Callable[..., None]
    size: int | None


_SLACK = 1 << 20  # bytes: what is saved beside the module and its optimizers is small


def expected_bytes(trainer: Trainer, options: Options) -> int:
    """About how much memory copies of the present state take; 0 if saves do not copy it.

    Frozen weights are left out, as the user may not save them: a first copy that needs more gets it.
    """
    if model_parallel.parts_model(trainer) or not isinstance(internals.own_checkpoint_io(trainer), DurableCheckpointIO):
        return 0
    weights = trainer.lightning_module.named_parameters()
    frozen = {name for name, weight in weights if not weight.requires_grad}
    saved = (value for name, value in internals.module_state(trainer).items() if name not in frozen)
    others: Iterable[torch.Tensor] = () if options.save_weights_only is True else changed_only_by_steps(trainer)
    tensors = [*saved, *others]
    plain = (it for it in tensors if type(it) in (torch.Tensor, torch.nn.Parameter) and it.layout is torch.strided)
    storages: list[torch.UntypedStorage] = [tensor.untyped_storage() for tensor in plain]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    compared = MOST if trainer.strategy.root_device.type == "cuda" else 0
    return sum(sizes.values()) + UNIT * len(sizes) + compared + _SLACK


def staged(
    trainer: Trainer,
    checkpoint: dict[str, Any],
    request: SaveRequest,
    options: Options,
    store: Store,
    buffer: StagingBuffer,
    shards: StagedShards | None,
    *,
    only_steps_change: bool | None,
) -> Staged:
    """The present state. What may be copied while training continues is left to the background thread.

    ``only_steps_change`` says whether optimizer steps alone change parameters; ``None`` if that is still to be watched.
    """
    if shards is not None:
        snapshot = Snapshot.of(checkpoint, buffer)
        write = partial(shards.lead, store, snapshot, checkpoint[KEY]["metadata"])
        return Staged(snapshot=snapshot, write=write, size=snapshot.size + shards.size)
    if not isinstance(internals.own_checkpoint_io(trainer), DurableCheckpointIO):
        return Staged(snapshot=None, write=partial(users_io.write, trainer, checkpoint), size=None)
    snapshot = _snapshot(trainer, checkpoint, request, options, buffer, only_steps_change=only_steps_change)
    return Staged(snapshot=snapshot, write=partial(store.write, snapshot), size=snapshot.size)


def _snapshot(
    trainer: Trainer,
    checkpoint: dict[str, Any],
    request: SaveRequest,
    options: Options,
    buffer: StagingBuffer,
    *,
    only_steps_change: bool | None,
) -> Snapshot:
    if not options.async_save:
        return Snapshot.of(checkpoint)
    watched = only_steps_change is None
    overlaps = watched or (only_steps_change and request.reasons <= PERIODIC)
    later = changed_only_by_steps(trainer) if overlaps else ()
    try:
        return Snapshot.of(checkpoint, buffer, later, watched=watched)
    except MemoryError as error:
        keep_no_blocks()
        warnings.warn(
            f"{error}, so training waits for this save. Set async_save=False, or leave more memory free.",
            CheckpointableWarning,
            stacklevel=2,
        )
        return Snapshot.of(checkpoint)
