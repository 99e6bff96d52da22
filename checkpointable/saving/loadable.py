"""What of a checkpoint a resume can load: makes it plain where that is ours to do, and names what is not plain."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch

from checkpointable.lightning_internals.logged import plain
from checkpointable.policy.options import Options
from checkpointable.storage.format.placeholder import Placeholder

_NOT_NEEDED = (  # by a resume, which takes the hyper-parameters of the script
    *("hyper_parameters", "hparams_name", "hparams_type"),
    *("datamodule_hyper_parameters", "datamodule_hparams_name", "datamodule_hparams_type"),
)
_SAFE_TYPES = {
    *(type(None), bool, int, float, complex, str, bytes, bytearray),
    *(torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device),
}
_MAPPINGS = (dict, OrderedDict, Counter)
_SEQUENCES = (list, tuple, set)


def make_loadable(checkpoint: dict[str, Any]) -> None:
    """Make plain what is ours among the hyper-parameters, and the logged scores in the states of callbacks.

    A path becomes a string. A ``timedelta`` is left out: the module can be built without it.
    """
    saved = checkpoint.get("hyper_parameters", {})
    for name in Options.__dataclass_fields__:
        if isinstance(saved.get(name), os.PathLike):
            saved[name] = os.fspath(saved[name])
        elif isinstance(saved.get(name), timedelta):
            del saved[name]
    if "callbacks" in checkpoint:
        checkpoint["callbacks"] = plain(checkpoint["callbacks"], most_elements=1)


def unsafe_types_not_named(checkpoint: Mapping[str, Any], named: set[str]) -> Iterator[str]:
    """Name each type that ``torch.load(weights_only=True)`` refuses and that is not in ``named`` yet."""
    for kind, places in unsafe_types(checkpoint).items():
        if kind in named:
            continue
        named.add(kind)
        others = f" (so are {len(places) - 1} other values)" if len(places) > 1 else ""
        yield (
            f"checkpoint{places[0]} is a {kind}{others}. Trainer.fit(ckpt_path=...) does not load it by default,"
            " because that can run code from the file: a resume that restores the value is refused, and other code"
            " gets a placeholder. Save a plain value there, or resume with Trainer.fit(weights_only=False)."
        )


def unsafe_types(checkpoint: Mapping[str, Any]) -> dict[str, list[str]]:
    """The types that ``torch.load(weights_only=True)`` refuses, and where they are. Hyper-parameters do not count."""
    found: dict[str, list[str]] = {}
    for key, part in checkpoint.items():
        if key not in _NOT_NEEDED:
            for at, kind in _unsafe(part, f"[{key!r}]", set()):
                found.setdefault(kind, []).append(at)
    return found


def _unsafe(value: Any, at: str, seen: set[int]) -> Iterator[tuple[str, str]]:
    kind = type(value)
    if kind in _MAPPINGS or kind in _SEQUENCES:
        if id(value) not in seen:
            seen.add(id(value))
            items = value.items() if kind in _MAPPINGS else enumerate(value)
            for key, item in items:
                if type(item) in _SAFE_TYPES:  # nearly all
                    continue
                yield from _unsafe(item, f"{at}[{key!r}]", seen)
    elif kind is Placeholder:
        yield at, f"placeholder for a value made by {value.name}"
    elif kind not in _SAFE_TYPES and kind not in torch.serialization.get_safe_globals():
        yield at, f"{kind.__module__}.{kind.__qualname__}"
