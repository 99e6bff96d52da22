"""What the user's own samplers hold besides random generators: numbers, lists and arrays that a pass may change.

A sampler may count its passes, or shuffle its indices in place. What has changed since the script made it is saved and
restored. The rest is compared by a digest, as the script of the resumed run may make it otherwise.
"""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
import pickle
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch.utils.data import Dataset

from checkpointable.resume.generator_states import kinds
from checkpointable.resume.owned_rng import samplers
from checkpointable.storage.format.same import bytes_of

_SAVED = (type(None), bool, int, float, str, list, tuple, dict, set, torch.Tensor)
_STATIC = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
_DEEPEST = 6
_OF_TORCH = (
    "torch.",
    "torchdata.",
    "lightning.",
    "pytorch_lightning.",
)  # of these, only the samplers inside are looked at
_INSIDE = ("sampler", "batch_sampler", "dataset", "_sampler")

Setter = Callable[[Any], None]


class Held:
    """What the user's own samplers of one loader hold, by where it is found.

    Attributes:
        is_known: Whether all samplers are of torch, so that nothing has to be looked at.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self.is_known = False
        self.is_known = all(map(_is_of_torch, samplers(loader).values())) and not any(self._walk())
        self._first = self.digests()

    def capture(self) -> dict[str, Any]:
        """Copies of what has changed since the script made it."""
        values = {at: value for at, value, _ in self._walk() if _is_saved(value)}
        return {at: copy.deepcopy(value) for at, value in values.items() if digest_of(value) != self._first.get(at)}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Set it again, in place where it is a list or an array that others may hold, too."""
        for at, value, put in list(self._walk()):
            if at in saved and not _put_in_place(value, saved[at]):
                put(copy.deepcopy(saved[at]))

    def digests(self) -> dict[str, str]:
        """A digest of each value; ``""`` if it has none."""
        return {at: digest_of(value) for at, value, _ in self._walk()}

    def unknown(self) -> list[str]:
        """Where a sampler holds what cannot be saved: an iterator, or something else that cannot be compared."""
        found = []
        for at, value, _ in self._walk():
            digest = digest_of(value)
            if not digest or (not _is_saved(value) and digest != self._first.get(at)):
                found.append(f"{at} is of type {type(value).__name__}")
        return found

    def _walk(self) -> Iterator[tuple[str, Any, Setter]]:
        if self.is_known:
            return
        seen = {id(self._loader), id(getattr(self._loader, "dataset", None))}
        for owner, sampler in samplers(self._loader).items():
            yield from _values(owner, sampler, seen, _DEEPEST)


def _values(at: str, thing: Any, seen: set[int], depth: int) -> Iterator[tuple[str, Any, Setter]]:
    """The values in a sampler and its parts: where each is, and how to set it."""
    if id(thing) in seen or depth == 0:
        return
    seen.add(id(thing))
    is_list = isinstance(thing, (list, tuple))
    items = dict(enumerate(thing)) if is_list else dict(getattr(thing, "__dict__", {}))
    if _is_of_torch(thing):
        items = {name: value for name, value in items.items() if name in _INSIDE and hasattr(value, "__iter__")}
    for name, value in items.items():
        if id(value) in seen or isinstance(value, (*_STATIC, *kinds())) or _is_kept_elsewhere(value):
            continue
        if _has_parts(value):
            yield from _values(f"{at}.{name}", value, seen, depth - 1)
        else:
            yield f"{at}.{name}", value, _setter(thing, name)


def _is_saved(value: Any) -> bool:
    return isinstance(value, _SAVED) or hasattr(value, "dtype")


def _is_kept_elsewhere(value: Any) -> bool:
    """Whether it is a data set of the user's, or a module, which a checkpoint holds."""
    return isinstance(value, torch.nn.Module) or (isinstance(value, Dataset) and not _is_of_torch(value))


def _is_of_torch(thing: Any) -> bool:
    return thing is None or f"{type(thing).__module__}.".startswith(_OF_TORCH)


def _has_parts(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(hasattr(item, "__dict__") for item in itertools.islice(value, 64))
    return hasattr(value, "__dict__") and not hasattr(value, "__next__") and not isinstance(value, torch.Tensor)


def _setter(thing: Any, name: Any) -> Setter:
    def put(value: Any) -> None:
        if isinstance(thing, list):
            thing[name] = value
        elif not isinstance(thing, tuple):
            setattr(thing, name, value)

    return put


def _put_in_place(value: Any, saved: Any) -> bool:
    if type(value) is not type(saved):
        return False
    if isinstance(value, list):
        value[:] = copy.deepcopy(saved)
    elif isinstance(value, torch.Tensor) and value.shape == saved.shape and value.dtype == saved.dtype:
        value.copy_(saved)
    elif hasattr(value, "setflags") and value.shape == saved.shape and value.dtype == saved.dtype:  # an array
        value[...] = saved
    else:
        return False
    return True


def digest_of(value: Any) -> str:
    """A digest of the value, the same in every process; ``""`` if it cannot be told."""
    if hasattr(value, "__next__"):
        return ""
    if isinstance(value, torch.Tensor):
        content: bytes = bytes_of(value.detach().cpu()).numpy().tobytes()
    elif hasattr(value, "dtype") and getattr(value.dtype, "hasobject", True) is False:
        content = value.tobytes()
    else:
        file = io.BytesIO()
        pickler = pickle.Pickler(file, protocol=4)
        pickler.fast = True  # equal values give equal bytes, whether or not they share parts
        try:
            pickler.dump(sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value)
        except (TypeError, ValueError, AttributeError, RecursionError, pickle.PicklingError):  # what pickle refuses
            return ""
        content = file.getvalue()
    return hashlib.blake2b(content, digest_size=8).hexdigest()
