"""Which checkpoints fulfil conditions on their fields."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import date, datetime, time, timedelta
from typing import Any

from checkpointable._errors import PolicyError, UnknownArgumentError
from checkpointable.catalog.info import CheckpointInfo

NAMES = (*(it.name for it in fields(CheckpointInfo)), "attempt", "generation")
_OF_SEVERAL = {"reasons", "verdicts"}  # one that fits is enough


def matching(infos: Iterable[CheckpointInfo], conditions: Mapping[str, Any]) -> list[CheckpointInfo]:
    """The checkpoints that fulfil all conditions, in the given order; ``Checkpoints.where`` says what a condition is.

    Raises:
        UnknownArgumentError: If there is no field of a name.
        PolicyError: If a condition cannot be applied to its field.
    """
    unknown = [name for name in conditions if name not in NAMES]
    if unknown:
        raise UnknownArgumentError(
            f"cannot choose checkpoints by {', '.join(unknown)}. Choose by {', '.join(sorted(NAMES))}; by a logged"
            " value with a function: metrics=lambda metrics: metrics.get('val_acc', 0) > 0.9."
        )
    wanted = {name: _wanted(name, condition) for name, condition in conditions.items()}
    return [info for info in infos if all(_fits(info, name, condition) for name, condition in wanted.items())]


def repeatable(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """The same with lists in place of generators, which give their values once."""
    return {name: list(it) if isinstance(it, Iterator) else it for name, it in conditions.items()}


def in_words(conditions: Mapping[str, Any]) -> str:
    """``"kind='best', epoch from 3"``."""
    return ", ".join(f"{name}{_condition_in_words(condition)}" for name, condition in conditions.items()) or "any"


def _fits(info: CheckpointInfo, name: str, condition: Any) -> bool:
    value = info.lineage.attempt if name == "attempt" else getattr(info, name)
    values = value if name in _OF_SEVERAL else (value,)
    try:
        return any(_is_met(condition, it) for it in values)
    except TypeError as error:
        if callable(condition):
            raise
        raise PolicyError(
            f"cannot choose checkpoints by {name}{_condition_in_words(condition)}: {name} is {value!r} in {info.path}."
            " Pass a value of that type, a collection or a slice of such, or a function that returns True or False."
        ) from error


def _is_met(condition: Any, value: Any) -> bool:
    if isinstance(condition, slice):
        if condition.step is not None:
            raise TypeError("a slice of values has no step")
        if value is None:
            return False
        return (condition.start is None or condition.start <= value) and (
            condition.stop is None or value < condition.stop
        )
    if _is_collection(condition):
        return value in condition or any(isinstance(it, slice) and _is_met(it, value) for it in condition)
    return bool(condition(value)) if callable(condition) else bool(value == condition)


def _is_collection(condition: Any) -> bool:
    return isinstance(condition, Collection) and not isinstance(condition, (str, bytes, Mapping))


def _plain(condition: Any) -> Any:
    """The condition with paths as strings, and with times as files state them: seconds since the epoch of Unix time."""
    if isinstance(condition, slice):
        return slice(_plain(condition.start), _plain(condition.stop), condition.step)
    if isinstance(condition, range):
        return condition
    if getattr(condition, "ndim", None) == 0:  # a number of torch or numpy
        return _plain(condition.item())
    if _is_collection(condition):
        return [_plain(_whole_day(it)) for it in condition]
    if isinstance(condition, datetime):
        return condition.timestamp()
    if isinstance(condition, date):  # the first moment of the day
        return datetime.combine(condition, time.min).timestamp()
    return os.fspath(condition) if isinstance(condition, os.PathLike) else condition


def _wanted(name: str, condition: Any) -> Any:
    try:
        return _plain(_whole_day(condition))
    except (OverflowError, ValueError, RuntimeError) as error:  # the end of time, a tensor without a value
        raise PolicyError(f"cannot choose checkpoints by {name}={condition!r}: {error}. Pass another value.") from error


def _whole_day(condition: Any) -> Any:
    """A day as all its moments."""
    is_day = isinstance(condition, date) and not isinstance(condition, datetime)
    return slice(condition, condition + timedelta(days=1)) if is_day else condition


def _condition_in_words(condition: Any) -> str:
    if isinstance(condition, slice) and condition.step is None:
        start = "" if condition.start is None else f" from {condition.start}"
        return f"{start}{'' if condition.stop is None else f' before {condition.stop}'}" or " known"
    if callable(condition):
        return f" by {getattr(condition, '__name__', 'a function')}"
    return f" in {condition!r}" if _is_collection(condition) else f"={condition!r}"
