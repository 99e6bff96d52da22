"""Writes weights to a file that loads without this library: safetensors, or a plain ``state_dict``. Imports torch."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from checkpointable._errors import PolicyError
from checkpointable.cli.ties import originals
from checkpointable.storage.paths import is_remote

SAFETENSORS = ".safetensors"
_PLAIN = (".pt", ".pth", ".bin")


def check_target(target: str, *, force: bool) -> None:
    """Refuse a file that cannot be written before anything is read.

    Raises:
        PolicyError: If it is no local path with a known suffix.
        FileExistsError: If it is there already, and not to be written over.
        ImportError: If the package of its format is not installed.
    """
    suffix = Path(target).suffix
    if is_remote(target) or suffix not in (SAFETENSORS, *_PLAIN):
        allowed = ", ".join((SAFETENSORS, *_PLAIN))
        raise PolicyError(f"cannot write {target}: must be a local file that ends with one of {allowed}.")
    folder = os.path.dirname(target) or os.curdir
    if not os.path.isdir(folder) or os.path.isdir(target):
        raise PolicyError(f"cannot write {target}: {folder} must be a directory, and {target} must not be one.")
    if os.path.lexists(target) and not force:
        raise FileExistsError(f"{target} is there already. Choose another name, or add --force to write over it.")
    if suffix == SAFETENSORS:
        _safetensors()


def write(weights: Mapping[str, torch.Tensor], target: str, notes: Mapping[str, str]) -> dict[str, str]:
    """Write weights to a file. It appears under its name when it is complete.

    Args:
        weights: By name. Those that are one tensor under several names are written once.
        target: The file; its suffix says which format.
        notes: What the header of a safetensors file tells beside them.

    Returns:
        The names that safetensors has no room for, each with the name whose tensor it shares: as
        ``safetensors.torch.save_model`` writes them, and ``load_model`` reads them.

    Raises:
        PolicyError: If safetensors cannot hold one of them.
    """
    compact, shared = _compact(weights)
    aside = f"{target}.{secrets.token_hex(4)}.tmp"
    try:
        if Path(target).suffix != SAFETENSORS:
            with open(aside, "wb") as made:
                torch.save(compact, made)
            shared = {}
        else:
            _refuse_special(compact)
            once = _apart({name: tensor for name, tensor in compact.items() if name not in shared})
            _safetensors().save_file(once, aside, metadata={"format": "pt", **notes, **shared})
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(aside)
    return shared


def _compact(weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The same weights, none with more memory behind it than it shows; and which names share the tensor of another."""
    first = originals(weights)
    once = {name: _alone(weights[name]) for name, original in first.items() if name == original}
    shared = {name: original for name, original in first.items() if name != original}
    return {name: once[first[name]] for name in weights}, shared


def _apart(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same, each with memory of its own: safetensors refuses others, such as two shapes of one memory."""
    memory = Counter(tensor.untyped_storage().data_ptr() for tensor in weights.values() if tensor.numel())
    return {
        name: tensor.clone(memory_format=torch.contiguous_format)
        if memory[tensor.untyped_storage().data_ptr()] > 1
        else tensor.contiguous()
        for name, tensor in weights.items()
    }


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    is_special = tensor.layout != torch.strided or tensor.is_quantized
    return tensor if is_special or _fills_storage(tensor) else tensor.clone()


def _fills_storage(tensor: torch.Tensor) -> bool:
    return tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def _refuse_special(weights: Mapping[str, torch.Tensor]) -> None:
    special = [name for name, it in weights.items() if it.layout != torch.strided or it.is_quantized]
    if special:
        raise PolicyError(
            f"safetensors holds no sparse or quantized tensors: {', '.join(special)}. Write a file that ends with .pt."
        )


def _safetensors() -> Any:
    try:
        from safetensors import torch as safetensors_torch
    except ImportError as error:
        raise ImportError(
            "writing *.safetensors needs a package: pip install 'checkpointable[export]'. Or write a file that ends"
            " with .pt."
        ) from error
    return safetensors_torch
