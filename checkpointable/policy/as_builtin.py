"""Dataclasses as plain dictionaries, and back. A checkpoint holds only types that ``weights_only=True`` loads."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

_T = TypeVar("_T")
_MOST = 1 << 63  # no number of a run is as large
_SEQUENCES = (tuple, frozenset, Sequence)


def as_builtin(record: Any) -> dict[str, Any]:
    """A dataclass as a dictionary of its fields.

    Dataclasses inside it become dictionaries too, enum members their values, tuples and sets lists. Values of any other
    type, and of fields declared ``Any``, are left as they are.
    """
    kind: Any = type(record)
    return {name: _encoded(hint, getattr(record, name)) for name, hint in _hints(kind).items()}


def from_builtin(kind: type[_T], saved: Mapping[str, Any]) -> _T:
    """The dataclass that ``as_builtin`` was given. Fields that have a default may be missing.

    Raises:
        KeyError: If a field without a default is missing.
        ValueError: If a value is not a member of its field's enum.
    """
    dataclass: Any = kind
    given = saved.keys() | required(dataclass)
    return kind(**{name: _decoded(hint, saved[name]) for name, hint in _hints(dataclass).items() if name in given})


def required(kind: Any) -> list[str]:
    """The fields of a dataclass that have no default."""
    return [it.name for it in fields(kind) if it.default is MISSING and it.default_factory is MISSING]


def misfits(kind: Any, saved: Mapping[str, Any]) -> list[str]:
    """The fields with values that ``as_builtin`` cannot have given, each as ``name is value``."""
    given = [(name, hint) for name, hint in _hints(kind).items() if name in saved]
    return [f"{name} is {saved[name]!r:.60}" for name, hint in given if not _fits(hint, saved[name])]


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _fits(hint: Any, value: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(kind, value) for kind in get_args(hint))
    if is_dataclass(hint):
        return isinstance(value, dict) and value.keys() >= set(required(hint)) and not misfits(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return value in list(hint)
    if _holds_sequence(hint):
        return isinstance(value, list) and all(_fits(_item(hint), item) for item in value)
    if origin is Mapping:
        return isinstance(value, dict) and all(_fits(get_args(hint)[1], item) for item in value.values())
    if hint in (int, float) and type(value) is int:
        return abs(value) < _MOST
    return hint is Any or type(value) is hint


def _encoded(hint: Any, value: Any) -> Any:
    if value is None or hint is Any:
        return value
    if is_dataclass(value):
        return as_builtin(value)
    if isinstance(value, Enum):
        return value.value
    if get_origin(hint) in (Union, types.UnionType):
        return _encoded(_without_none(hint), value)
    if _holds_sequence(hint):
        items = [_encoded(_item(hint), item) for item in value]
        return sorted(items) if isinstance(value, frozenset) else items
    return value


def _decoded(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if get_origin(hint) in (Union, types.UnionType):
        return _decoded(_without_none(hint), value)
    if isinstance(hint, type) and is_dataclass(hint):
        return from_builtin(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if _holds_sequence(hint):
        kind = frozenset if get_origin(hint) is frozenset else tuple
        return kind(_decoded(_item(hint), item) for item in value)
    return value


def _holds_sequence(hint: Any) -> bool:
    return isinstance(get_origin(hint), type) and issubclass(get_origin(hint), _SEQUENCES)


def _item(hint: Any) -> Any:
    return get_args(hint)[0]


def _without_none(hint: Any) -> Any:
    """The one type of ``X | None``; a union of several types holds none that is converted."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 else Any
