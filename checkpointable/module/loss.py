"""What ``compute_loss`` may return, and how it becomes a scalar loss and numbers to log."""

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
    """Call a module's ``compute_loss``, with or without ``batch_idx``, as it asks for.

    Returns:
        The loss, a tensor of shape (), under ``"loss"``, and the other quantities that were returned beside it.

    Raises:
        ComputeLossError: If it returned something that is not a loss.
    """
    how = _how_batch_idx(module.compute_loss)
    if how == "by name":
        returned = module.compute_loss(batch, batch_idx=batch_idx)
    else:
        returned = module.compute_loss(batch, batch_idx) if how == "by place" else module.compute_loss(batch)
    return parse(returned, owner=type(module).__name__, training=training)


def missing(cls: type) -> MissingComputeLossError:
    """The error for a class that has no ``compute_loss``."""
    return MissingComputeLossError(
        f"{cls.__name__} has no compute_loss. Write it:\n"
        "    def compute_loss(self, batch):\n        images, labels = batch\n"
        "        return torch.nn.functional.cross_entropy(self.net(images), labels)"
    )


@not_compiled
def parse(returned: Any, *, owner: str, training: bool) -> dict[str, Any]:
    """The loss, a tensor of shape (), under ``"loss"``, and the other quantities that were returned beside it.

    Args:
        returned: What ``compute_loss`` gave.
        owner: The class it belongs to, for the error.
        training: Whether the loss has to carry a gradient.

    Raises:
        ComputeLossError: If it is not a loss. The message says what it is and what is expected.
    """
    where = f"{owner}.compute_loss"
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
def _how_batch_idx(compute_loss: Callable[..., Any]) -> str:
    """How a bound ``compute_loss`` takes ``batch_idx`` beside the batch: ``"by place"``, ``"by name"``, ``"not"``."""
    function = getattr(compute_loss, "__func__", compute_loss)
    return _parameters(function, function is not compute_loss)


@cache
def _parameters(function: Callable[..., Any], bound: bool) -> str:
    parameters = list(inspect.signature(function).parameters.values())[bound:]
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    places = [p for p in parameters if p.kind in positional]
    second = places[1] if len(places) > 1 else None
    if second is not None and (second.name == "batch_idx" or second.default is inspect.Parameter.empty):
        return "by place"
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return "by place"
    return "by name" if any(p.name == "batch_idx" for p in parameters) else "not"


def _what(value: Any) -> str:
    if value is None:
        return "None (is a return statement missing?)"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}"
