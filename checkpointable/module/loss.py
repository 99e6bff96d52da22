"""Calls ``compute_loss`` and checks what it returns: a scalar loss, and perhaps numbers to log."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

import torch

from checkpointable._errors import ComputeLossError, MissingComputeLossError
from checkpointable.module.compiling import compiled_inside, not_compiled

Loss: TypeAlias = "torch.Tensor | Mapping[str, torch.Tensor | float]"
_CURE = 'Return a scalar tensor, shape (), or a mapping whose "loss" is one.'


@compiled_inside
def losses_of(module: Any, batch: Any, batch_idx: int, *, training: bool) -> dict[str, Any]:
    """The checked result of ``compute_loss``: the loss, shape (), under ``"loss"``, and the other quantities."""
    compute_loss = module.compute_loss
    function = getattr(compute_loss, "__func__", compute_loss)
    match _how_batch_idx(function, is_bound=function is not compute_loss):
        case "by name":
            returned = compute_loss(batch, batch_idx=batch_idx)
        case "by position":
            returned = compute_loss(batch, batch_idx)
        case _:
            returned = compute_loss(batch)
    return _parse(returned, where=f"{type(module).__name__}.compute_loss", training=training)


def missing(cls: type) -> MissingComputeLossError:
    """The error for a class that has no ``compute_loss``."""
    return MissingComputeLossError(
        f"{cls.__name__} has no compute_loss. Write it:\n"
        "    def compute_loss(self, batch):\n        images, labels = batch\n"
        "        return torch.nn.functional.cross_entropy(self.net(images), labels)"
    )


@not_compiled
def _parse(returned: Any, *, where: str, training: bool) -> dict[str, Any]:
    extras: dict[str, torch.Tensor | float] = {}
    loss = returned
    if isinstance(returned, Mapping):
        if "loss" not in returned:
            raise ComputeLossError(f'{where} returned a mapping without "loss"; it has {sorted(returned)}. {_CURE}')
        loss = returned["loss"]
        extras = {name: value for name, value in returned.items() if name != "loss"}
    if not isinstance(loss, torch.Tensor):
        raise ComputeLossError(f"{where} returned {_what(loss)}. {_CURE}")
    if loss.numel() != 1:
        raise ComputeLossError(f"{where} returned a loss of shape {tuple(loss.shape)}. Take its mean. {_CURE}")
    if training and not loss.requires_grad:
        raise ComputeLossError(
            f"{where} returned a loss without a gradient, so nothing can be learned from it."
            " Compute it from the module's parameters, outside torch.no_grad(), without .detach() or .item()."
        )
    for name, value in extras.items():
        if not (value.numel() == 1 if isinstance(value, torch.Tensor) else isinstance(value, numbers.Real)):
            raise ComputeLossError(f"{where} returned {name!r} beside the loss, {_what(value)}, not a scalar. {_CURE}")
    return {"loss": loss.reshape(()), **extras}


@not_compiled
@cache
def _how_batch_idx(function: Callable[..., Any], *, is_bound: bool) -> str:
    """How ``compute_loss`` takes ``batch_idx``: ``"by position"`` after the batch, ``"by name"`` or ``"not"``."""
    parameters = list(inspect.signature(function).parameters.values())[is_bound:]
    second = [it for it in parameters if it.kind in (it.POSITIONAL_ONLY, it.POSITIONAL_OR_KEYWORD)][1:2]
    takes_second = any(it.name == "batch_idx" or it.default is it.empty for it in second)
    if takes_second or any(it.kind is it.VAR_POSITIONAL for it in parameters):
        return "by position"
    return "by name" if any(it.name == "batch_idx" for it in parameters) else "not"


def _what(value: Any) -> str:
    if value is None:
        return "None (is a return statement missing?)"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}"
