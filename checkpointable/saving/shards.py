"""Saves in shards: each rank writes what it has of weights and optimizers, and rank 0 writes the rest.

``torch.distributed.checkpoint`` writes the shards, on the background threads of all ranks. They talk in a group of
their own, as the training goes on in the other one. When all shards are there, rank 0 adds the rest and the marker.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from checkpointable._errors import SaveError
from checkpointable.lightning_internals import model_parallel
from checkpointable.resume import shard_sums
from checkpointable.saving.save_task import SaveRequest
from checkpointable.storage import direct
from checkpointable.storage.format import shards
from checkpointable.storage.local import LocalStore
from checkpointable.storage.staging.snapshot import Snapshot
from checkpointable.storage.store import Store

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Shards:
    """What the saves in shards of one fit have in common, on one rank."""

    def __init__(self) -> None:
        self._group: Any = None
        self._stager: Any = None
        self._frozen: set[str] = set()  # as the script makes the module, also at a resume

    def open(self, trainer: Trainer, store: Store | None) -> None:
        """Before anything is trained, if the strategy saves in shards. Collective.

        Raises:
            SaveError: If the store cannot hold directories.
        """
        if model_parallel.parts_model(trainer):
            weights = trainer.lightning_module.named_parameters()
            self._frozen = {name for name, weight in weights if not weight.requires_grad}
        if not model_parallel.saves_in_shards(trainer):
            return
        if store is not None and not store.has_directories:
            raise SaveError(
                f"cannot save checkpoints in shards in {store.directory}: each process writes its own files, which is"
                " not possible at a URL. Choose a dirpath on a file system that all processes share, or pass"
                " ModelParallelStrategy(save_distributed_checkpoint=False)."
            )
        self._group = torch.distributed.new_group(backend="gloo")

    def stage(self, trainer: Trainer, checkpoint: dict[str, Any]) -> StagedShards | None:
        """Take the shards out of a checkpoint, as a copy; ``None`` if the strategy does not save in shards. Collective.

        Raises:
            SaveError: On all ranks, if one of them cannot copy its part, as for lack of memory.
        """
        if not model_parallel.saves_in_shards(trainer):
            return None
        taken = model_parallel.take_shards(checkpoint)
        self._stager = self._stager or _stager()
        state: Mapping[str, Any] = {}
        why: str | None = None
        try:
            state = self._stager.stage(taken)
        except (MemoryError, RuntimeError) as error:  # torch's allocators raise RuntimeError
            why = f"{type(error).__name__}: {error}"
        of_ranks: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(of_ranks, why)
        _raise_first(of_ranks, "cannot copy its shard; leave more memory free")
        return StagedShards(
            state=state,
            size=sum(it.numel() * it.element_size() for _, it in model_parallel.tensors(taken)),
            rank=trainer.global_rank,
            buffers=shard_sums.rank_buffers(trainer),
            group=self._group,
        )

    def require_loadable(self, trainer: Trainer, request: SaveRequest) -> None:
        """Before a save.

        Raises:
            SaveError: On all ranks, if the strategy could not read the state of the optimizers back: it looks for that
                of each parameter that is trained.
        """
        if not model_parallel.parts_model(trainer) or request.weights_only:
            return
        name = type(trainer.strategy).__name__
        if request.position.step == 0:
            raise SaveError(
                f"{name} cannot read a checkpoint in which the optimizers have made no step yet, so none is saved"
                " before their first one."
            )
        missing = _without_state(trainer, self._frozen)
        if missing:
            raise SaveError(
                f"{name} cannot read a checkpoint in which an optimizer has no state for some of its parameters:"
                f" {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''} have got no gradient yet. Nothing is"
                " saved until they have. If they never get one, freeze them before the training (requires_grad=False)"
                " or leave them out of the optimizer."
            )

    def close(self) -> None:
        """Free memory, and leave the group."""
        if self._stager is not None:
            self._stager.close()
        if self._group is not None and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group(self._group)
        self._group = self._stager = None

    def __reduce__(self) -> tuple[type[Shards], tuple[()]]:  # for copies of a module
        return (Shards, ())


@dataclass(kw_only=True)
class StagedShards:
    """What one rank has to write in one save. Once it has begun, only the background thread uses it.

    Attributes:
        state: What this rank has, copied.
        size: Bytes of all ranks together.
        buffers: The names of those that differ from rank to rank.
    """

    state: Mapping[str, Any]
    size: int
    rank: int
    buffers: set[str]
    group: Any
    _has_begun: bool = dataclasses.field(default=False, init=False)

    def lead(self, store: Store, rest: Snapshot, metadata: Mapping[str, Any], path: str, *, overwrite: bool) -> None:
        """On rank 0: write the directory with all ranks. A name that is taken is never overwritten.

        Raises:
            FileExistsError: If the name is taken.
            SaveError: If a rank fails.
        """
        try:
            store.write_directory(partial(self._fill, rest, metadata), path)
        except FileExistsError as error:
            if self._has_begun:  # the others have written, and wait for no other name
                raise SaveError(f"{path} has been taken while it was written") from error
            raise

    def abandon(self) -> None:
        """On rank 0, at the end: let the others go if nothing was written."""
        if not self._has_begun:
            self._tell(None)

    def follow(self) -> None:
        """On all other ranks: write when rank 0 does."""
        folder = self._tell(None)
        if folder is not None:
            self._write(Path(folder))

    def _fill(self, rest: Snapshot, metadata: Mapping[str, Any], folder: Path) -> None:
        self._tell(str(folder))
        sums = self._write(folder)
        self._require_all(folder)
        LocalStore(folder).write(rest, str(folder / shards.REST), overwrite=False)
        shards.mark(folder, metadata, shard_sums.total(sums), direct.open_file)

    def _require_all(self, folder: Path) -> None:
        """On rank 0: check that it sees the shards of all ranks."""
        from torch.distributed.checkpoint.filesystem import FileSystemReader

        named = {str(it.relative_path) for it in FileSystemReader(folder).read_metadata().storage_data.values()}
        missing = sorted(name for name in named if not (folder / name).exists())
        if missing:
            raise SaveError(
                f"rank 0 does not see {', '.join(missing)} in {folder}, which other ranks have written. All processes"
                " must share the directory: choose a dirpath on a file system that they share."
            )

    def _tell(self, folder: str | None) -> str | None:
        """Where rank 0 says that the others shall write. Collective."""
        self._has_begun, told = True, [folder]
        torch.distributed.broadcast_object_list(told, src=0, group=self.group)
        return told[0]

    def _write(self, folder: Path) -> list[Any]:
        """Write the shards; on rank 0, return the sums of all ranks. Collective."""
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict_saver import save

        from checkpointable.saving.shard_writer import DurableWriter

        sums = self._sums()
        of_ranks: list[Any] = [None] * torch.distributed.get_world_size(self.group)
        try:
            save(
                dict(self.state),
                storage_writer=DurableWriter(folder),
                process_group=self.group,
            )
            torch.distributed.gather_object(sums, of_ranks if self.rank == 0 else None, group=self.group)
        except CheckpointException as error:  # torch derives it from BaseException
            each = "; ".join(f"rank {rank}: {failure}" for rank, (failure, _) in error.failures.items())
            raise SaveError(f"{folder}: shards could not be written: {each}") from error
        except RuntimeError as error:
            raise SaveError(f"{folder}: another rank has ended while shards were written: {error}") from error
        if self.rank == 0:
            _raise_first(of_ranks, f"cannot take the sums over its shard for {folder}; leave more memory free")
        return of_ranks

    def _sums(self) -> dict[str, int] | str:
        """Those of this rank, or why there are none. The others have begun to write already."""
        try:
            return shard_sums.of_rank(self.state, self.rank, self.buffers)
        except (MemoryError, RuntimeError) as error:  # torch's allocators raise RuntimeError
            return f"{type(error).__name__}: {error}"


def _raise_first(of_ranks: Sequence[Any], what: str) -> None:
    """Raise what the first of the ranks tells that has failed, which is a string."""
    for rank, told in enumerate(of_ranks):
        if isinstance(told, str):
            raise SaveError(f"rank {rank} {what} ({told})")


def _without_state(trainer: Trainer, frozen: set[str]) -> list[str]:
    """The names of parameters whose optimizer has a state for others, but none for them."""
    names = {id(weight): name for name, weight in trainer.lightning_module.named_parameters()}
    found: list[str] = []
    for optimizer in trainer.optimizers:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        trained = [weight for weight in weights if names.get(id(weight), "") not in frozen]
        lacking = [names.get(id(weight), "a parameter") for weight in trained if not optimizer.state.get(weight)]
        is_stateless = len(lacking) == len(trained) and _may_have_no_state(optimizer, len(trainer.optimizers))
        found += [] if is_stateless else lacking
    return found


def _may_have_no_state(optimizer: Any, optimizers: int) -> bool:
    """Whether an optimizer without any state may have stepped: it is the only one, or it never has one."""
    is_plain = isinstance(optimizer, torch.optim.SGD) and not any(it["momentum"] for it in optimizer.param_groups)
    return is_plain or optimizers == 1


def _stager() -> Any:
    """What copies a state to the CPU, into memory that is used again if this version of torch can do that."""
    from torch.distributed.checkpoint import staging

    if not hasattr(staging, "DefaultStager"):
        return staging.BlockingAsyncStager()
    options = staging.StagingOptions(
        use_pinned_memory=torch.cuda.is_available(),
        use_shared_memory=False,
        use_async_staging=False,
        use_non_blocking_copy=torch.cuda.is_available(),
    )
    return staging.DefaultStager(options)
