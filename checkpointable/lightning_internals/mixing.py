"""Our class in front of one of Lightning's, whichever that is: of either tree, or a subclass that a user wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex, TypeVar, cast

T = TypeVar("T", bound="Mixin")

_combined: dict[tuple[type, type], type] = {}


class Mixin:
    """Base of the classes that ``combined`` puts in front of others. What it makes can be pickled and copied."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """As usual, but with the two classes in place of the combined one, which has no name to import it by."""
        cls = type(self)
        reduced: Any = super().__reduce_ex__(protocol)
        function, arguments, *state = reduced
        if arguments[0] is not cls:  # a user's class that pickles in a way of its own
            return reduced
        mixin, base = cls.__bases__
        return (_rebuild, (mixin, base, function, arguments[1:]), *state)


def combined(mixin: type[T], base: type) -> type[T]:
    """Return the subclass of both, with ``mixin`` first. It has the name of ``base``, which profilers print."""
    if (mixin, base) not in _combined:
        _combined[mixin, base] = type(base.__name__, (mixin, base), {})
    return cast(type[T], _combined[mixin, base])


def put_before(mixin: type[Mixin], thing: object) -> None:
    """Let ``mixin`` override methods of this one instance. Doing it again changes nothing."""
    if not isinstance(thing, mixin):
        thing.__class__ = combined(mixin, type(thing))


def _rebuild(mixin: type[Mixin], base: type, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(combined(mixin, base), *arguments)
