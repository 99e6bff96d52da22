"""Loads a checkpoint without running code from it, whatever objects it holds.

Torch's own unpickler goes first (``weights_only=True``). What it does not know becomes a ``Placeholder``. It refuses
files with subclasses of lists and dictionaries (``deque``, ``defaultdict``); those are read by the unpickler below.
"""

from __future__ import annotations

import _compat_pickle
import pickle
import struct
from collections import Counter, OrderedDict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, BinaryIO

import torch
from torch import serialization

from checkpointable.storage.format.placeholder import Loading, Placeholder

_SELF = f"{Placeholder.__module__}.{Placeholder.__qualname__}"
_SUBCLASS = "torch._tensor._rebuild_from_type_v2"  # of a tensor

# What torch's unpickler calls, and every tensor is made of. All else becomes a placeholder.
_KNOWN = {
    *("builtins.set", "builtins.complex", "builtins.bytearray", "_codecs.encode"),
    *("collections.OrderedDict", "collections.Counter"),
    *("torch.Size", "torch.device", "torch.serialization._get_layout"),
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"),
    *("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"),
    *("torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_nested_tensor", "torch._utils._rebuild_qtensor"),
    *("torch._utils._rebuild_meta_tensor_no_storage", "torch._utils._rebuild_device_tensor_from_cpu_tensor"),
    *(_SUBCLASS, "torch.Tensor", "torch.nn.parameter.Parameter"),
    *("torch.storage.UntypedStorage", "torch.storage.TypedStorage"),
    *(f"torch.{name}" for name, value in vars(torch).items() if isinstance(value, (torch.dtype, torch.qscheme))),
}

# What pickles of protocol 2 consist of, and what the unpickler below checks. All else is refused.
_OPCODES = (
    *(pickle.PROTO, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.GLOBAL, pickle.REDUCE),
    *(pickle.NEWOBJ, pickle.BUILD, pickle.BINPERSID, pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT),
    *(pickle.LONG_BINPUT, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS, pickle.EMPTY_LIST, pickle.APPEND),
    *(pickle.APPENDS, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.NONE),
    *(pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.LONG4),
    *(pickle.BINFLOAT, pickle.BINUNICODE),
)

_MALFORMED = (
    *(pickle.UnpicklingError, struct.error, EOFError, TypeError, AttributeError, ValueError, LookupError),
    AssertionError,
)


class UnknownObjectsError(Exception):
    """A file has objects for which placeholders have to stand."""


def load(
    file: BinaryIO,
    path: str,
    map_location: Any,
    *,
    weights_only: bool | None,
    mapped: bool = False,
    with_placeholders: bool = True,
) -> Any:
    """What a file that ``torch.save`` wrote as an archive holds. Unknown objects become placeholders.

    Args:
        file: The open file.
        path: Its name, for errors.
        map_location: As for ``torch.load``.
        weights_only: ``None`` or ``True``, as for ``torch.load``: an environment variable of torch may decide.
        mapped: Whether the tensors lie in the file, which is local, and are read when they are used.
        with_placeholders: Refuse a file that needs some. They are compared where they are keys of a mapping.

    Raises:
        UnknownObjectsError: If that is so.
        pickle.UnpicklingError: If it holds what no checkpoint holds.
    """
    loading, source = Loading(path), path if mapped else file
    stand_ins = [(Placeholder(name, loading), name) for name in _unknown(file) if name != _SELF]
    if not with_placeholders and (stand_ins or _SELF in _unknown(file)):
        raise UnknownObjectsError
    try:
        with serialization.safe_globals([(Placeholder, _SELF), *stand_ins]):
            try:
                return torch.load(source, map_location=map_location, weights_only=weights_only, mmap=mapped)
            except _MALFORMED as error:
                refused = error
        return _load_with_ours(source, loading, map_location, refused)
    finally:
        loading.is_open = False


def _unknown(file: BinaryIO) -> list[str]:
    """The classes and functions in a file that torch does not load; none if torch cannot list them."""
    try:
        return serialization.get_unsafe_globals_in_checkpoint(file)
    except _MALFORMED:
        return []
    finally:
        file.seek(0)


def _load_with_ours(source: BinaryIO | str, loading: Loading, map_location: Any, refused: Exception) -> Any:
    if not isinstance(source, str):
        source.seek(0)
    kind = type("_Unpickler", (_Unpickler,), {"loading": loading, "users": told_to_be_safe()})
    pickling = SimpleNamespace(Unpickler=kind, load=None, __name__=__name__)
    try:
        is_mapped = isinstance(source, str)
        return torch.load(source, map_location, pickling, weights_only=False, mmap=is_mapped)
    except _MALFORMED as error:
        raise pickle.UnpicklingError(
            f"cannot load {loading.path} without running code from it (weights_only): {error}.\n"
            "Pass weights_only=False to the method that loads it if you trust the file."
        ) from refused


def told_to_be_safe() -> dict[str, Any]:
    """What the user has told torch to be safe to load, by name."""
    told = serialization.get_safe_globals()
    named = (it if isinstance(it, tuple) else (it, f"{it.__module__}.{it.__qualname__}") for it in told)
    return {name: it for it, name in named}


class _Opcodes(dict[int, Any]):
    """What is done for each opcode."""

    def __missing__(self, opcode: int) -> Any:
        raise pickle.UnpicklingError(f"opcode {opcode} is not one of a checkpoint")


_Python: Any = pickle._Unpickler  # the one written in Python


class _Unpickler(_Python):  # type: ignore[misc]  # as above
    """Python's unpickler, which calls nothing but what is in ``_KNOWN`` or what the user has told torch to be safe.

    It checks what each opcode is applied to. Python's own would set attributes on whatever the file names.
    """

    loading: Loading
    users: Mapping[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._real: dict[str, Any] = {}
        self._stand_ins: dict[str, Placeholder] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of this name if it is known, else a placeholder."""
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        full = f"{module}.{name}"
        if full not in _KNOWN and full not in self.users and full != _SELF:
            return self._stand_ins.setdefault(full, Placeholder(full, self.loading))
        if full not in self._real:
            self._real[full] = self.users[full] if full in self.users else super().find_class(module, name)
        return self._real[full]

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack[-1]
        if type(args) is not tuple:
            raise pickle.UnpicklingError(f"a call with arguments of type {type(args).__name__}")
        self.stack[-1] = self._called(function, args)

    def _called(self, function: Any, args: tuple[Any, ...]) -> Any:
        if isinstance(function, Placeholder):
            return function.followed_by("call", args)
        name = self._name_of(function)
        if function is Placeholder or not any(isinstance(arg, Placeholder) for arg in args):
            return function(*args)
        if name == _SUBCLASS and len(args) == 4:
            rebuild, kind, parts, state = args  # it is kept as a plain tensor, since a storage cannot be compared
            return self._called(kind, (self._called(rebuild, parts), state))
        return Placeholder(name, self.loading).followed_by("call", args)

    def load_newobj(self) -> None:
        args, kind = self.stack.pop(), self.stack[-1]
        if isinstance(kind, Placeholder):
            self.stack[-1] = kind.followed_by("new", args)
        else:
            self._name_of(kind)
            self.stack[-1] = kind.__new__(kind, *args)

    def load_build(self) -> None:
        self._check("a state", self.stack[-2], OrderedDict, Placeholder)
        super().load_build()

    def load_append(self) -> None:
        item = self.stack.pop()
        self._extend([item])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def load_setitems(self) -> None:
        self._update(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        self._check("items", target, list, Placeholder)
        if isinstance(target, Placeholder):
            target.add("items", items)
        else:
            target.extend(items)

    def _update(self, flat: list[Any]) -> None:
        target, pairs = self.stack[-1], zip(flat[::2], flat[1::2], strict=True)
        self._check("entries", target, dict, OrderedDict, Counter, Placeholder)
        if isinstance(target, Placeholder):
            target.add("entries", list(pairs))
        else:
            target.update(pairs) if type(target) is not Counter else dict.update(target, pairs)

    def _name_of(self, function: Any) -> str:
        for name, real in self._real.items():
            if real is function:
                return name
        raise pickle.UnpicklingError(f"a call of a {type(function).__name__}")

    def _check(self, what: str, target: Any, *kinds: type) -> None:
        """Refuse to add to an object of another type. Classes that the user has told torch to be safe are fine."""
        if type(target) not in kinds and not any(type(target) is kind for kind in self.users.values()):
            raise pickle.UnpicklingError(f"{what} for a {type(target).__name__}")

    _own = (
        *((pickle.REDUCE, load_reduce), (pickle.NEWOBJ, load_newobj), (pickle.BUILD, load_build)),
        *((pickle.APPEND, load_append), (pickle.APPENDS, load_appends)),
        *((pickle.SETITEM, load_setitem), (pickle.SETITEMS, load_setitems)),
    )
    dispatch = _Opcodes(
        {code[0]: _Python.dispatch[code[0]] for code in _OPCODES} | {code[0]: own for code, own in _own}
    )
