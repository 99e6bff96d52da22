"""The gradients of an open accumulation window."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def collect(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The gradients that wait for the rest of their window, by parameter name."""
    return {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}


def restore(module: torch.nn.Module, gradients: Mapping[str, torch.Tensor]) -> None:
    """Put them back, on the devices of their parameters."""
    for name, weight in module.named_parameters():
        if name in gradients:
            weight.grad = gradients[name].to(device=weight.device, dtype=weight.dtype)
