"""Reads the weights of a checkpoint in shards, in one process, and runs no code from it.

``.metadata`` says what lies where. Torch unpickles whatever is in it, this only the classes that it consists of.
"""

from __future__ import annotations

import io
import os
import pathlib
import pickle
from typing import Any, BinaryIO

import torch
from torch import serialization
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint import metadata as torch_metadata
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from checkpointable._errors import NotLoadedError

METADATA = ".metadata"
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
    planner = DefaultLoadPlanner()
    planner.set_up_planner(wanted, found, is_coordinator=True)
    reader.set_up_storage_reader(found, is_coordinator=True)
    reader.read_data(planner.create_local_plan(), planner).wait()
    return {weight: tensor for weights in wanted.values() for weight, tensor in weights.items()}


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
