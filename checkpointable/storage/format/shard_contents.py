"""Reads a checkpoint in shards in one process, and runs no code from it: its weights, or all of it.

``.metadata`` says what lies where. Torch unpickles whatever is in it, this only the classes that it consists of.
"""

from __future__ import annotations

import io
import os
import pathlib
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import torch
from torch import serialization
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint import metadata as torch_metadata
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem

from checkpointable._errors import NotLoadedError
from checkpointable.storage.files import open_file
from checkpointable.storage.format.shards import REST

METADATA = ".metadata"
_OPTIMIZER = re.compile(r"optimizer_\d+")
_ROOTS = {"state_dict", "model"}  # of the weights, as ModelParallelStrategy and FSDPStrategy name them


def load_weights(folder: str) -> dict[str, torch.Tensor]:
    """The weights in a directory, put together on the CPU. The optimizers are not read.

    Raises:
        NotLoadedError: If one of them is no tensor, or the directory holds what no checkpoint holds.
    """
    reader = _Reader(folder)
    found = reader.read_metadata()
    paths = {name: path for name, path in (found.planner_data or {}).items() if path[0] in _ROOTS and len(path) == 2}
    kinds = {name: found.state_dict_metadata[name] for name in paths}
    others = sorted(name for name, kind in kinds.items() if not isinstance(kind, TensorStorageMetadata))
    if others:
        raise NotLoadedError(
            f"cannot load the weights of {folder} without running code from it: {', '.join(others)} are no tensors."
            " If you trust it, make one file of it: checkpointable.to_single_file(...)."
        )
    wanted: dict[str, dict[str, torch.Tensor]] = {}
    for name, kind in kinds.items():
        assert isinstance(kind, TensorStorageMetadata)
        root, weight = paths[name]
        wanted.setdefault(str(root), {})[str(weight)] = torch.empty(kind.size, dtype=kind.properties.dtype)
    _fill(wanted, reader, found, DefaultLoadPlanner())
    return {weight: tensor for weights in wanted.values() for weight, tensor in weights.items()}


def load_whole(folder: str, load: Callable[[BinaryIO], Any]) -> dict[str, Any]:
    """A checkpoint in shards as Lightning's strategies for whole files save it, in memory, on the CPU.

    Args:
        folder: The directory.
        load: Reads what ``torch.save`` wrote, of what does not lie in shards.

    Raises:
        NotLoadedError: If the directory holds what no checkpoint holds.
    """
    found = _load_all(folder, load)
    with open_file(os.path.join(folder, REST)) as file:
        rest: dict[str, Any] = load(file)
    names = sorted((name for name in found if _OPTIMIZER.fullmatch(name)), key=lambda name: int(name[10:]))
    weights = next((found[root] for root in ("state_dict", "model") if root in found), None)
    if weights is None:
        raise NotLoadedError(f"cannot load {folder}: it holds no weights. {_CURE}")
    states = {"optimizer_states": [_by_number(found[name]) for name in names]} if names else {}
    return {**rest, "state_dict": weights, **states}


def _by_number(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an optimizer by the numbers of its parameters, as ``Optimizer.state_dict`` has it."""
    names = [name for group in state["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    groups = [{**group, "params": [numbers[name] for name in group["params"]]} for group in state["param_groups"]]
    kept = state.get("state", {})  # torch drops an empty one
    return {"state": {numbers[name]: it for name, it in kept.items()}, "param_groups": groups}


def _load_all(folder: str, load: Callable[[BinaryIO], Any]) -> dict[str, Any]:
    """All that a directory holds in shards."""
    reader = _Reader(folder)
    wanted: dict[str, Any] = {}
    _fill(wanted, reader, reader.read_metadata(), _AllPlanner(load))
    return wanted


def _fill(wanted: dict[str, Any], reader: _Reader, found: Metadata, planner: DefaultLoadPlanner) -> None:
    planner.set_up_planner(wanted, found, is_coordinator=True)
    reader.set_up_storage_reader(found, is_coordinator=True)
    reader.read_data(planner.create_local_plan(), planner).wait()


class _AllPlanner(_EmptyStateDictLoadPlanner):
    """Plans to read all there is. Torch unpickles each value that is no tensor without a check, this with ``load``."""

    def __init__(self, load: Callable[[BinaryIO], Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._load = load

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        set_element(self.original_state_dict, self.mappings[read_item.dest_index.fqn], self._load(value))


class _Reader(filesystem.FileSystemReader):
    """Torch's reader of such a directory, which unpickles nothing but what it consists of."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with open(os.path.join(self.path, METADATA), "rb") as file:
            found = _Unpickler(file, str(self.path)).load()
        if not isinstance(found, Metadata):
            raise NotLoadedError(f"cannot load {self.path}: its {METADATA} is a {type(found).__name__}. {_CURE}")
        return found


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, folder: str) -> None:
        super().__init__(io.BytesIO(file.read()))
        self._folder = folder

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of this name, if ``.metadata`` consists of such."""
        known = _known().get((module, name))
        if known is None:
            raise NotLoadedError(f"cannot load {self._folder} without running {module}.{name} from it. {_CURE}")
        return known


def _known() -> dict[tuple[str, str], Any]:
    classes = [it for it in vars(torch_metadata).values() if getattr(it, "__module__", "") == torch_metadata.__name__]
    known: dict[tuple[str, str], Any] = {(it.__module__, it.__qualname__): it for it in classes if isinstance(it, type)}
    known |= {("torch", name): it for name, it in vars(torch).items() if isinstance(it, torch.dtype)}
    known |= {(module, name): pathlib.Path for module in _PATHS for name in ("PosixPath", "WindowsPath", "Path")}
    known["torch", "Size"] = torch.Size
    known["torch.serialization", "_get_layout"] = vars(serialization)["_get_layout"]
    storage_info = vars(filesystem)["_StorageInfo"]
    known[storage_info.__module__, storage_info.__qualname__] = storage_info
    return known


_PATHS = ("pathlib", "pathlib._local")  # the latter since Python 3.13
_CURE = "Another program has written it. Choose another checkpoint."
