"""The random generators that loaders, samplers, data sets and their transforms own: found, captured and restored."""

from __future__ import annotations

import random
from collections.abc import Mapping, MutableMapping
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch

from checkpointable.lightning_internals.tree import is_a
from checkpointable.resume.generator_states import is_global, kinds, made_from, set_state, state_of

_DEEPEST, _LONGEST, MOST = 12, 64, 5000  # limits of the search: longer lists hold samples, not transforms
IN_DATA = ("dataset.", "collate_fn.")  # where generators draw at every batch, and not only the order
_MISSING = object()
_CALLED = (FunctionType, MethodType, partial)  # their parts are not attributes

Path = tuple[Any, ...]  # the owner's name, then the name or index of each part


class Owners:
    """The random generators of one loader, by where each is found.

    They are searched for when a fit starts, and once more after its first batch, which may make some. Later only the
    places where they were found are looked at, where there may be another generator by now.

    Attributes:
        is_complete: Whether the search came to its end, and not to its limit.
        waiting: States of generators that don't exist yet, by place.
        made: Places where a generator was put before the code of its owner made one.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self.waiting: dict[str, Any] = {}
        self.made: set[str] = set()
        self.search()

    def search(self) -> None:
        """Look for generators everywhere again."""
        seen: set[int] = set()
        found: dict[Path, Any] = {}
        self.is_complete = True
        for owner, thing in _owners(self._loader).items():
            self.is_complete &= search((owner,), thing, found, seen)
        search(("loader",), self._loader, found, seen, depth=1)
        self._places = {_name(path): path for path in found}

    def capture(self) -> dict[str, Any]:
        """The states of the generators, and those that still wait for one."""
        return {**self.waiting, **{at: state_of(generator) for at, generator in self._now().items()}}

    def states(self) -> dict[str, Any]:
        """The states of those that are not the global ones."""
        return {at: state_of(generator) for at, generator in self._now().items() if not is_global(generator)}

    def restore(self, states: Mapping[str, Any]) -> None:
        """Set the generators to these states; states of generators that don't exist wait for them."""
        now = self._now()
        for at, state in states.items():
            if at in now:
                set_state(now[at], state)
            elif at.startswith(IN_DATA):
                self._make_or_wait(at, state)

    def missing(self, states: Mapping[str, Any]) -> list[str]:
        """The places of those states that have no generator here."""
        return sorted(states.keys() - self._now().keys())

    def give_waiting(self) -> None:
        """After a batch: give the states that wait to generators that have been made since."""
        parts: dict[Path, Any] = {}
        for at in list(self.waiting):
            generator = self._at(tuple(at.split(".")), parts)
            if isinstance(generator, kinds()):
                set_state(generator, self.waiting.pop(at))
                self._places[at] = tuple(at.split("."))

    def _make_or_wait(self, at: str, state: Any) -> None:
        """Put a generator in this state where one will be made at its first use, or let the state wait for it."""
        path = tuple(at.split("."))
        owner, name = self._at(path[:-1], {}), path[-1]
        made = made_from(state) if _parts(owner).get(name) is None else None
        if made is not None and isinstance(owner, MutableMapping):
            owner[name] = made
        elif made is not None and hasattr(owner, "__dict__") and not isinstance(owner, _CALLED):
            setattr(owner, name, made)
        else:
            self.waiting[at] = state
            return
        self._places[at] = path
        self.made.add(at)

    def _now(self) -> dict[str, Any]:
        parts: dict[Path, Any] = {}
        found = {at: self._at(path, parts) for at, path in self._places.items()}
        return {at: generator for at, generator in found.items() if isinstance(generator, kinds())}

    def _at(self, path: Path, known: dict[Path, Any]) -> Any:
        """What is at this place now; ``known`` are the parts of the things on the way."""
        if len(path) == 1:
            return self._loader if path == ("loader",) else _owners(self._loader).get(path[0], _MISSING)
        if path[:-1] not in known:
            known[path[:-1]] = _parts(self._at(path[:-1], known))
        parts = known[path[:-1]]
        return parts.get(path[-1], parts.get(int(path[-1]), _MISSING) if str(path[-1]).isdigit() else _MISSING)


def samplers(loader: Any) -> dict[str, Any]:
    """A loader's own samplers, also while ``IndexBatches`` replaces one."""
    found = {name: _source(getattr(loader, name, None)) for name in ("sampler", "batch_sampler")}
    return {**found, "inner": getattr(found["batch_sampler"], "sampler", None)}


def search(path: Path, thing: Any, found: dict[Path, Any], seen: set[int], depth: int = _DEEPEST) -> bool:
    """Add the generators in an object's attributes and in those of its parts (data sets in data sets, transforms).

    Breadth first, so that the limit on visited objects does not hide a generator near the object.

    Returns:
        Whether everything was visited.
    """
    level, most, generators = [(path, thing)], len(seen) + MOST, kinds()
    for _ in range(depth + 1):
        deeper: list[tuple[Path, Any]] = []
        for at, part in level:
            if id(part) in seen:
                continue
            if len(seen) > most:
                return False
            seen.add(id(part))
            if isinstance(part, generators) and not isinstance(part, random.SystemRandom):  # has no state
                found[at] = part
            else:
                deeper += [((*at, name), value) for name, value in _parts(part).items()]
        level = deeper
    return True


def _owners(loader: Any) -> dict[str, Any]:
    ordering, collate_fn = samplers(loader), getattr(loader, "collate_fn", None)
    return {
        "dataset": getattr(loader, "dataset", None),
        "collate_fn": _source(collate_fn),
        "batch_sampler.sampler": ordering.pop("inner"),
        **ordering,
    }


def _source(thing: Any) -> Any:
    """What the script gave to a loader, also while one of our own stands for it."""
    return thing.source if getattr(type(thing), "stands_for_source", False) else thing


def _name(path: Path) -> str:
    return ".".join(map(str, path))


def _parts(thing: Any) -> dict[Any, Any]:
    """What is inside of a thing; nothing if its own code raises when it is asked."""
    try:
        return _found_in(thing)
    except Exception:  # noqa: BLE001  # the user's code may raise anything
        return {}


def _found_in(thing: Any) -> dict[Any, Any]:
    if isinstance(thing, Mapping):
        return dict(thing) if len(thing) <= _LONGEST else {}
    if isinstance(thing, (list, tuple)):
        return dict(enumerate(thing)) if len(thing) <= _LONGEST else {}
    if isinstance(thing, MethodType):
        return {"self": thing.__self__}
    if isinstance(thing, partial):
        return {"function": thing.func, "arguments": thing.args, "keywords": thing.keywords}
    if isinstance(thing, FunctionType):
        names = dict(zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=False))
        empty = CellType()  # the cell of a name that is not bound yet
        return {name: cell.cell_contents for name, cell in names.items() if cell != empty}
    if isinstance(thing, (type, ModuleType, torch.Tensor)) or is_a(thing, "Trainer"):
        return {}
    return dict(getattr(thing, "__dict__", {}))
