"""Users override hooks, and Lightning taught them to leave ``super()`` out. Our part is done all the same.

Every class below ours has its overrides of our hooks wrapped when it is made: after the user's code our part runs, if
the code did not call it, with one warning for the class and the hook. The wrapper is on the class, not the instance, so
pickling, ``deepcopy`` and Lightning's ``is_overridden`` see nothing unusual.
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
"""What of ours a hook does, by the name of the hook; called with the instance and the hook's arguments."""

_Hook = TypeVar("_Hook", bound=Callable[..., Any])
_WRAPPED = "_checkpointable_wrapped"


def part(hook: _Hook) -> _Hook:
    """Mark a hook of ours as having a part that must run, and note in the instance that it did."""

    @functools.wraps(hook)
    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls = _calls(self)
        if hook.__name__ in calls:
            calls[hook.__name__].append(True)
        return hook(self, *args, **kwargs)

    setattr(noting, _WRAPPED, True)
    return cast(_Hook, noting)


def guard(cls: type, parts: Parts, *, warn: bool) -> None:
    """Wrap the overrides of our hooks that a new class brings, by itself or from a foreign mixin.

    Args:
        cls: The new class.
        parts: Ours.
        warn: Whether a missing ``super()`` is worth a warning.
    """
    for name, ours in parts.items():
        override = inspect.getattr_static(cls, name)
        if isinstance(override, FunctionType) and not hasattr(override, _WRAPPED):
            setattr(cls, name, _wrap(cls, name, override, ours, warn=warn))


def _wrap(
    cls: type, name: str, override: FunctionType, parts: tuple[Callable[..., None], ...], *, warn: bool
) -> Callable[..., Any]:
    @functools.wraps(override)
    def outermost(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls = _calls(self)
        if name in calls:  # an override further up; the outermost one looks after our part
            return override(self, *args, **kwargs)
        calls[name] = []
        try:
            result = override(self, *args, **kwargs)
            if not calls[name]:
                if warn:
                    _warn_once(cls, name, override)
                for ours in parts:
                    ours(self, *args, **kwargs)
        finally:
            calls.pop(name, None)
        return result

    setattr(outermost, _WRAPPED, True)
    return outermost


def _calls(module: Any) -> dict[str, list[bool]]:
    calls: dict[str, list[bool]] = module.__dict__.setdefault("_checkpointing_calls", {})
    return calls


def _warn_once(cls: type, name: str, override: FunctionType) -> None:
    warned = cls.__dict__.get("_checkpointing_warned", frozenset())
    if name not in warned:
        cls._checkpointing_warned = warned | {name}  # type: ignore[attr-defined]  # ours, and only ours
        code = inspect.unwrap(override).__code__
        message = (
            f"{cls.__name__}.{name} does not call super().{name}(...). checkpointable has done its part after it all"
            " the same; call super() to say when, and to silence this."
        )
        warnings.warn_explicit(message, CheckpointableWarning, code.co_filename, code.co_firstlineno)
