"""What ``torch.compile`` of a whole module leaves alone: our steps around ``compute_loss``, which log and check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


def not_compiled(function: _Function) -> _Function:
    """Run it, and everything it calls, as it is."""
    return cast(_Function, torch.compiler.disable(function))  # type: ignore[no-untyped-call]


def compiled_inside(function: _Function) -> _Function:
    """Run it as it is; what it calls is compiled."""
    return cast(_Function, torch.compiler.disable(function, recursive=False))  # type: ignore[no-untyped-call]
