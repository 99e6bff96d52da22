"""Keeps ``torch.compile`` away from our code around ``compute_loss``, which logs and checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


def not_compiled(function: _Function) -> _Function:
    """Compile neither the function nor what it calls."""
    return cast(_Function, torch.compiler.disable(function))  # type: ignore[no-untyped-call]


def compiled_inside(function: _Function) -> _Function:
    """Do not compile the function, but what it calls."""
    return cast(_Function, torch.compiler.disable(function, recursive=False))  # type: ignore[no-untyped-call]
