"""Runs our part of a hook even if a user's override does not call ``super()``, which Lightning does not require.

When a subclass of ours is created, its overrides of our hooks are wrapped: if the user's code did not run our part, the
wrapper does so afterwards, with one warning for each class and hook. The wrapper is on the class, not the instance, so
pickling, ``deepcopy`` and Lightning's ``is_overridden`` work as usual.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, TypeVar, cast

from checkpointable._errors import CheckpointableWarning

Parts = Mapping[str, tuple[Callable[..., None], ...]]
"""Our part of each hook, by the hook's name: functions called with the instance and the hook's arguments."""

_Hook = TypeVar("_Hook", bound=Callable[..., Any])
_WRAPPED = "_checkpointable_wrapped"


def part(hook: _Hook) -> _Hook:
    """Mark a hook of ours whose part must run, and note in the instance when it does."""

    @functools.wraps(hook)
    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls = _calls(self)
        if hook.__name__ in calls:
            calls[hook.__name__].append(True)
        return hook(self, *args, **kwargs)

    setattr(noting, _WRAPPED, True)
    return cast(_Hook, noting)


def guard(cls: Any) -> None:
    """Wrap the overrides of our hooks in a new subclass of ours, its own and those of other base classes."""
    for name, parts in cls._checkpointing_parts.items():
        override = inspect.getattr_static(cls, name)
        if isinstance(override, FunctionType) and not hasattr(override, _WRAPPED):
            setattr(cls, name, _wrap(cls, name, override, parts))


def _wrap(cls: Any, name: str, override: FunctionType, parts: tuple[Callable[..., None], ...]) -> Callable[..., Any]:
    @functools.wraps(override)
    def outermost(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls = _calls(self)
        if name in calls:  # of several overrides in a class hierarchy, the outermost one runs our part
            return override(self, *args, **kwargs)
        calls[name] = []
        try:
            result = override(self, *args, **kwargs)
            if not calls[name]:
                if cls._checkpointing_expects_super:
                    _warn_once(cls, name, override)
                for own_part in parts:
                    own_part(self, *args, **kwargs)
        finally:
            calls.pop(name, None)
        return result

    setattr(outermost, _WRAPPED, True)
    return outermost


def _calls(module: Any) -> dict[str, list[bool]]:
    calls: dict[str, list[bool]] = module.__dict__.setdefault("_checkpointing_calls", {})
    return calls


def _warn_once(cls: Any, name: str, override: FunctionType) -> None:
    warned = cls.__dict__.get("_checkpointing_warned", frozenset())
    if name not in warned:
        cls._checkpointing_warned = warned | {name}
        code = inspect.unwrap(override).__code__
        message = (
            f"{cls.__name__}.{name} does not call super().{name}(...), so checkpointable ran its part afterwards."
            " Call super() to choose when that part runs, and to silence this warning."
        )
        warnings.warn_explicit(message, CheckpointableWarning, code.co_filename, code.co_firstlineno)
