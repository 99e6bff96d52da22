"""A placeholder stands in a loaded checkpoint for an object that is not loaded, because code would have to run for it.

It keeps as data what the file says about the object: its class or function, the arguments, the state. Two placeholders
can be compared. They can be copied and saved again. Any other use raises an error that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from checkpointable._errors import NotLoadedError
from checkpointable.storage.format.same import ComparedByParts, same


@dataclass
class Loading:
    """One reading of a file.

    Attributes:
        path: The file.
        is_open: Whether the unpickler still adds to the placeholders.
    """

    path: str
    is_open: bool = True


class Placeholder(ComparedByParts):
    """Stands for an object that is not loaded.

    Args:
        origin: The class or function, as ``module.name``, or the placeholder that was called.
        loading: The reading that makes it; ``None`` for one that was saved as a placeholder.
    """

    __slots__ = ("_loading", "_name", "_origin", "_steps")

    _loading: Loading | None
    _name: str
    _origin: str | Placeholder
    _steps: list[tuple[Any, ...]]  # how the file makes the object

    def __new__(cls, *args: Any) -> Placeholder:
        """Make one. If ``cls`` is a placeholder, as in an unpickler: the object that the file makes of this class."""
        if isinstance(cls, Placeholder):
            return cls.followed_by("new", args)
        origin, loading = (*args, None, None)[:2]
        if not isinstance(origin, (str, Placeholder)) or not isinstance(loading, (Loading, type(None))):
            raise TypeError(f"a placeholder cannot stand for a {type(origin).__name__}")
        made = object.__new__(cls)
        made._origin, made._loading = origin, loading
        made._name = origin._name if isinstance(origin, Placeholder) else origin
        made._steps = []
        return made

    @property
    def name(self) -> str:
        """The class or function that made the object, or that made what made it."""
        return self._name

    def followed_by(self, kind: str, *data: Any) -> Placeholder:
        """While it is loaded: the object that the file makes of this one by a call."""
        self._require_loading("call it")
        made = Placeholder(self, self._loading)
        made._steps.append((kind, *data))
        return made

    def add(self, kind: str, *data: Any) -> None:
        """While it is loaded: note what the file adds to the object."""
        self._require_loading("change it")
        self._steps.append((kind, *data))

    def __call__(self, *args: Any) -> Placeholder:
        """While it is loaded: the object that the file makes of it by a call. Later: raise."""
        return self.followed_by("call", args)

    def __setstate__(self, state: Any) -> None:
        """Note the state of the object, or restore a placeholder that was saved."""
        if self._loading is not None:
            self.add("state", state)
        elif self._steps or type(state) is not list:
            self._refuse("change it")
        else:
            self._steps = state

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """For copies and pickles: it stays a placeholder."""
        return Placeholder, (self._origin,), self._steps or None

    def __eq__(self, other: object) -> bool:
        """Whether both stand for equal objects, as far as the files tell."""
        return same(self, other) if isinstance(other, Placeholder) else NotImplemented

    def parts(self) -> tuple[Any, ...]:
        """What the file says about the object."""
        return self._origin, self._steps

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f"<{self._name}, not loaded>"

    def __getattr__(self, name: str) -> NoReturn:
        if name == "__qualname__":  # torch asks for its type, to refuse it as a parameter, buffer or layer of a module
            self._refuse("use it in the place of a parameter, buffer or layer")
        if name.startswith("__"):  # Python's own questions, such as whether it can be copied
            raise AttributeError(f"{self!r} has no {name}")
        self._refuse(f"read its attribute {name!r}")

    def _require_loading(self, wish: str) -> None:
        if self._loading is None or not self._loading.is_open:
            self._refuse(wish)

    def _refuse(self, wish: str) -> NoReturn:
        where = "a checkpoint" if self._loading is None else self._loading.path
        raise NotLoadedError(f"cannot {wish}: {not_loaded(self._name, where)}")


def not_loaded(name: str, path: str) -> str:
    """Why there is only a placeholder, and what to do."""
    return (
        f"this is a placeholder for a value made by {name} in {path}. The value was not loaded, because that can run"
        " code from the file.\nPass weights_only=False to the method that loads the file if you trust it, or save a"
        " plain value there (a number, string, list, dict or tensor)."
    )


def _refusing(operation: str) -> Callable[..., NoReturn]:
    def refuse(self: Placeholder, *_: Any, **__: Any) -> NoReturn:
        self._refuse(f"use it in {operation}")

    return refuse


_ARITHMETIC = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
    *("lshift", "rshift", "and", "xor", "or"),
)
for _operation in (
    *("iter", "next", "len", "bool", "contains", "getitem", "setitem", "delitem", "enter", "exit"),
    *("lt", "le", "gt", "ge", "neg", "pos", "abs", "invert", "int", "float", "index", "complex", "round", "fspath"),
    *_ARITHMETIC,
    *(f"r{name}" for name in _ARITHMETIC),
):
    setattr(Placeholder, f"__{_operation}__", _refusing(f"__{_operation}__"))


def placeholders_in(value: Any, at: str = "") -> Iterator[tuple[str, Placeholder]]:
    """Where placeholders are in a checkpoint: in dictionaries, lists, tuples and sets, but not in placeholders."""
    return _found(value, at, set())


def _found(value: Any, at: str, seen: set[int]) -> Iterator[tuple[str, Placeholder]]:
    if isinstance(value, Placeholder):
        yield at, value
    elif isinstance(value, (Mapping, list, tuple, set)) and id(value) not in seen:
        seen.add(id(value))
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from _found(key, at, seen)
                yield from _found(item, f"{at}[{key!r}]", seen)
        else:
            for number, item in enumerate(value):
                yield from _found(item, f"{at}[{number}]", seen)
