"""What ``compute_loss`` may return, and how it becomes a scalar loss and numbers to log."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

import torch

from checkpointable._compile import compiled_inside, not_compiled
from checkpointable._errors import ComputeLossError, MissingComputeLossError

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
    takes_both = _takes_batch_idx(type(module).compute_loss)
    returned = module.compute_loss(batch, batch_idx) if takes_both else module.compute_loss(batch)
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
@cache
def _takes_batch_idx(compute_loss: Callable[..., Any]) -> bool:
    """Whether a ``compute_loss``, as a plain function with ``self``, takes ``batch_idx`` beside the batch."""
    kinds = [parameter.kind for parameter in inspect.signature(compute_loss).parameters.values()]
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return inspect.Parameter.VAR_POSITIONAL in kinds or sum(kind in positional for kind in kinds) >= 3


def _what(value: Any) -> str:
    if value is None:
        return "None (is a return statement missing?)"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}"
