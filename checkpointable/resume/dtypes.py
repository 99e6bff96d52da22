"""The types of loaded state, where loading changes them.

``torch.optim.Optimizer.load_state_dict`` casts floating-point state to the type of its parameter, also state that was
kept in another type on purpose: the products of ``NAdam`` under ``bf16-true``, or a master copy of the weights in 32
bits (https://github.com/pytorch/pytorch/issues/43706). And Lightning loads the weights before
``Trainer(precision="64-true")`` makes them 64 bits wide, so that they are rounded to 32 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


@torch.no_grad()
def restore_rounded(weights: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Put back the bits of weights that are those of the file, rounded to 32 bits."""
    for name, now in weights.items():
        before = saved.get(name)
        if (
            isinstance(before, torch.Tensor)
            and now.dtype == before.dtype == torch.float64
            and now.shape == before.shape
        ):
            before = before.to(now.device)
            if torch.equal(now, before.float().double()):
                now.copy_(before)


def restore_dtypes(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Put back each floating-point tensor of the saved state that was loaded as another type."""
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    numbers = [number for group in saved.get("param_groups", ()) for number in group["params"]]
    for weight, number in zip(parameters, numbers, strict=False):
        if number in saved["state"] and weight in optimizer.state:
            optimizer.state[weight] = _with_dtypes(optimizer.state[weight], saved["state"][number])


def _with_dtypes(loaded: Any, saved: Any) -> Any:
    if isinstance(loaded, torch.Tensor) and isinstance(saved, torch.Tensor):
        was_cast = saved.is_floating_point() and loaded.dtype != saved.dtype and loaded.shape == saved.shape
        return saved.detach().to(loaded.device, copy=True) if was_cast else loaded
    if isinstance(loaded, dict) and isinstance(saved, Mapping):
        for name, value in loaded.items():
            if name in saved:
                loaded[name] = _with_dtypes(value, saved[name])
    elif type(loaded) in (list, tuple) and isinstance(saved, (list, tuple)) and len(loaded) == len(saved):
        return type(loaded)(map(_with_dtypes, loaded, saved))
    return loaded
