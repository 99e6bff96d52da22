"""The frozen part of a module, which ``save_trainable_only`` leaves out of files: the script brings it by itself.

Left out is what requires no gradient and has the value that the script gave it before the training began: parameters
one by one, and the buffers of modules in whose part of the network no parameter is trained. So a ``BatchNorm`` beside
trained parameters is in the file. What code changes without gradients is in it too, once it has changed: a teacher that
follows by averaging, the statistics of a frozen ``BatchNorm`` in training mode, a layer that was trained and is frozen
again.

A file names what was left out, with the SHA-256 of each tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from torch.nn.parameter import is_lazy

from checkpointable.policy.names import KEY
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.storage.format.same import bytes_of, same

_COPIES = ("state_dict", "current_model_state")  # a callback that averages weights saves them twice
_SAMPLED = 1024  # elements of a tensor that are compared to see whether it has changed
_SHOWN = 3


@dataclass(frozen=True)
class _Known:
    """A tensor as the script made it."""

    seen: tuple[Any, ...]  # what shows, without reading all of it, that it is the same
    checksum: tuple[str, str]  # its type, and the SHA-256 of its shape and its bytes


class FrozenPart:
    """What is left out of the files of one fit."""

    def __init__(self) -> None:
        self._from_file: set[str] = set()
        self._known: dict[str, _Known] | None = None

    def note_loaded(self, module: torch.nn.Module, saved: Mapping[str, Any]) -> None:
        """Before a resume loads these weights: note which of them the script has otherwise, and so does not bring."""
        own = module.state_dict()
        self._from_file = {name for name, value in saved.items() if name in own and not _are_equal(own[name], value)}

    def begin(self, module: torch.nn.Module) -> None:
        """Before the first batch of a fit: note what is frozen, with its checksums."""
        if self._known is not None:
            return
        own = _plain_tensors(module)
        names = (frozen_names(module) - self._from_file) & own.keys()
        self._known = {name: _Known(seen(own[name]), checksum(own[name])) for name in sorted(names)}
        if not names:
            rank_zero_info(
                "checkpointable: save_trainable_only=True leaves nothing out, as nothing is frozen. Set"
                " requires_grad=False for what is not trained before the training begins."
            )

    def leave_out(self, module: torch.nn.Module, checkpoint: dict[str, Any]) -> dict[str, tuple[str, str]]:
        """Leave the frozen part out of a checkpoint that is made; return the checksums of what was left out, by name.

        What is trained or has changed by now is no longer left out, from here on. A copy that has other values than the
        module keeps them: averages of a frozen weight are rounded, and a hook may save what it likes.
        """
        if not self._known:
            return {}
        own, frozen = _plain_tensors(module), frozen_names(module)
        for name, known in list(self._known.items()):
            tensor = own.get(name)
            shown = None if tensor is None or name not in frozen else seen(tensor)
            if shown == known.seen:
                continue
            if tensor is not None and shown is not None and checksum(tensor) == known.checksum:  # it was moved
                self._known[name] = _Known(shown, known.checksum)
            else:
                del self._known[name]
        for key in _COPIES:
            if key in checkpoint:
                checkpoint[key] = copy(checkpoint[key])  # what users have of it stays as it is
                for name in self._known:
                    if same(checkpoint[key].get(name), own[name]):
                        del checkpoint[key][name]
        return {name: known.checksum for name, known in self._known.items()}


def bring(module: torch.nn.Module, checkpoint: dict[str, Any]) -> Verdict | None:
    """Put into a loaded checkpoint what its file has left out, as this module has it, so that it loads strictly.

    Returns:
        Whether the module has what was left out, by the checksums in the file; ``None`` if nothing was left out.
    """
    left_out = checkpoint.get(KEY, {}).get("left_out", {})
    if not left_out:
        return None
    own = module.state_dict()
    copies = [checkpoint[key] for key in _COPIES if key in checkpoint]
    for name in own.keys() & left_out.keys():
        if any(name in it for it in copies):  # loading that one changes the module
            own[name] = own[name].clone()
    for key in _COPIES:
        if key in checkpoint:
            brought = {name: own[name] for name in left_out if name in own and name not in checkpoint[key]}
            checkpoint[key] = {**checkpoint[key], **brought}  # the file's first: Lightning moves the module to them
    wrong = [name for name, saved in left_out.items() if name not in own or not _has_checksum(own[name], *saved)]
    if wrong:
        others = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        why = f"{', '.join(wrong[:_SHOWN])}{others}: not in the file, and not in the module as when it was saved"
        return Verdict("frozen part", Level.APPROXIMATE, why)
    return Verdict("frozen part", Level.EXACT, "not in the file; the module's has the checksums that are in it")


def frozen_names(module: torch.nn.Module) -> set[str]:
    """The names of the parameters that require no gradient, and of the buffers where no parameter is trained."""
    weights = dict(module.named_parameters(remove_duplicate=False))
    trained = {name for name, weight in weights.items() if weight.requires_grad}
    wholly_frozen = {it for name in weights for it in _above(name)} - {it for name in trained for it in _above(name)}
    buffers = (name for name, _ in module.named_buffers(remove_duplicate=False))
    return (weights.keys() - trained) | {name for name in buffers if not wholly_frozen.isdisjoint(_above(name))}


def checksum(tensor: torch.Tensor) -> tuple[str, str]:
    """The type of a tensor, and the SHA-256 of its shape and its bytes; the same on every device."""
    found = hashlib.sha256(repr(tuple(tensor.shape)).encode())
    found.update(_bytes(tensor))
    return str(tensor.dtype), found.hexdigest()


def combined_checksum(left_out: Mapping[str, Iterable[str]]) -> str | None:
    """The SHA-256 of all names and checksums; ``None`` if nothing is left out."""
    lines = "".join(f"{name} {' '.join(saved)}\n" for name, saved in sorted(left_out.items()))
    return hashlib.sha256(lines.encode()).hexdigest() if left_out else None


def _above(name: str) -> Iterator[str]:
    """The names of the modules that something is in; the outermost is ``""``."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def _plain_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What of the module's state has bytes that can be read."""
    return {name: value for name, value in module.state_dict().items() if is_plain(value)}


def is_plain(value: Any) -> bool:
    """Whether it is a tensor whose bytes can be read."""
    return (
        type(value) in (torch.Tensor, torch.nn.Parameter)  # others, such as a DTensor, have their bytes elsewhere
        and not is_lazy(value)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized or value.is_nested)
    )


def seen(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What shows a change of a plain tensor without reading all of it.

    Its place in memory, torch's count of its changes, and some of its elements: not all changes are counted.
    """
    flat = tensor.detach().reshape(-1)
    some = flat[:: max(flat.numel() // _SAMPLED, 1)]
    return tensor.data_ptr(), tensor._version, tensor.dtype, tuple(tensor.shape), bytes(_bytes(some))


def _bytes(tensor: torch.Tensor) -> memoryview:
    return bytes_of(tensor.detach().cpu()).numpy().data


def _has_checksum(tensor: Any, dtype: str, digest: str) -> bool:
    """Whether a tensor has that checksum in that type: the trainer's precision may change it after this."""
    target = getattr(torch, dtype.removeprefix("torch."), None)
    return is_plain(tensor) and isinstance(target, torch.dtype) and checksum(tensor.to(target)) == (dtype, digest)


def _are_equal(own: Any, value: Any) -> bool:
    if not (is_plain(own) and is_plain(value)) or own.shape != value.shape:
        return False
    return torch.equal(own.to(device=value.device, dtype=value.dtype), value)
