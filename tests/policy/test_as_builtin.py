"""Dataclasses as plain dictionaries: only built-in types, and the same dataclass back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest

from checkpointable.policy.as_builtin import as_builtin, from_builtin, misfits


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    number: int
    colour: Colour | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner
    several: tuple[Inner, ...] = ()
    colours: frozenset[Colour] = frozenset()
    names: Sequence[str] = ()
    anything: Any = None
    mapping: Mapping[str, Any] = field(default_factory=dict)


OUTER = Outer(
    inner=Inner(1, Colour.RED),
    several=(Inner(2), Inner(3, Colour.BLUE)),
    colours=frozenset({Colour.RED, Colour.BLUE}),
    names=("a", "b"),
    anything=(1, {"kept": (2, 3)}),
    mapping={"tuple": (4, 5)},
)


def types_in(value: Any) -> set[type]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return {type(value)}.union(*map(types_in, inner))


def test_as_builtin_gives_only_built_in_types():
    assert types_in(as_builtin(OUTER)) <= {dict, list, tuple, int, str, type(None)}


def test_as_builtin_leaves_values_of_other_types_as_they_are():
    plain = as_builtin(OUTER)
    assert plain["anything"] is OUTER.anything
    assert plain["mapping"] is OUTER.mapping


@pytest.mark.parametrize("value", [Inner(1), Colour.RED, (1, 2)])
def test_as_builtin_leaves_a_field_declared_any_as_it_is(value):
    assert as_builtin(Outer(Inner(1), anything=value))["anything"] is value


def test_from_builtin_gives_the_same_dataclass_back():
    assert from_builtin(Outer, as_builtin(OUTER)) == OUTER


def test_from_builtin_ignores_unknown_fields_and_fills_in_defaults():
    assert from_builtin(Outer, {"inner": {"number": 1}, "unknown": 5}) == Outer(inner=Inner(1))


def test_from_builtin_without_a_field_that_has_no_default_names_it():
    with pytest.raises(KeyError, match="number"):
        from_builtin(Outer, {"inner": {}})


def test_from_builtin_with_a_value_that_is_no_member_of_its_enum_is_refused():
    with pytest.raises(ValueError, match="green"):
        from_builtin(Outer, {"inner": {"number": 1, "colour": "green"}})


def test_misfits_of_what_as_builtin_gave_are_none():
    assert misfits(Outer, as_builtin(OUTER)) == []
    assert misfits(Outer, {"anything": object(), "unknown": 5}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inner", None),
        ("inner", {}),
        ("inner", {"number": True}),
        ("inner", {"number": 1.0}),
        ("inner", {"number": 1, "colour": "green"}),
        ("several", {"number": 1}),
        ("several", [{"number": "1"}]),
        ("colours", ["red", []]),
        ("names", "ab"),
        ("names", [1]),
        ("mapping", [1]),
    ],
)
def test_misfits_name_the_field_and_its_value(name, value):
    assert misfits(Outer, {name: value}) == [f"{name} is {value!r}"]
