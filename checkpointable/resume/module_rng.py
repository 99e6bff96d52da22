"""The random generators in a module and its parts: found, captured and restored.

Looked at are attributes, and what is inside of those that are no modules: lists, dictionaries and objects of the user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume.generator_states import kinds, set_state, state_of
from checkpointable.resume.owned_rng import Path, search

_DEEPEST = 3
_PLAIN = (type(None), bool, int, float, str)


class ModuleGenerators:
    """The generators of the module that one fit trains.

    They are searched for at the first capture. Later only the attributes are looked at in which they were found.
    """

    def __init__(self) -> None:
        self._owners: list[tuple[str, str]] | None = None

    def capture(self, module: torch.nn.Module) -> dict[str, Any]:
        """Their states, by where each is found."""
        if self._owners is None:
            found = {path[:2] for path in _generators(module, _attributes(module))}
            self._owners = sorted((str(part), str(attribute)) for part, attribute in found)
        return {_name(path): state_of(it) for path, it in _generators(module, self._owners).items()}


def restore(module: torch.nn.Module, saved: Mapping[str, Any]) -> None:
    """Set the generators of a module to these states. Those that do not exist are left out."""
    for path, generator in _generators(module, _attributes(module)).items() if saved else ():
        if _name(path) in saved:
            set_state(generator, saved[_name(path)])


def verdicts(module: torch.nn.Module, saved: Mapping[str, Any]) -> Iterator[Verdict]:
    """How exactly the generators of a module resume from these states."""
    now = {_name(path) for path in _generators(module, _attributes(module))}
    for at in sorted(now ^ saved.keys()):
        why = "it was not there when saved" if at in now else "it does not exist here"
        yield Verdict(f"random generator {at!r}", Level.APPROXIMATE, why)
    if now and now == saved.keys():
        yield Verdict("generators of the module", Level.EXACT, "set to their states in the file")


def _attributes(module: torch.nn.Module) -> list[tuple[str, str]]:
    """Attributes by the name of the part of the module. Private ones are those of torch, Lightning and ours, mostly."""
    return [
        (name, attribute)
        for name, part in module.named_modules()
        for attribute, value in vars(part).items()
        if type(value) not in _PLAIN and (not attribute.startswith("_") or isinstance(value, kinds()))
    ]


def _generators(module: torch.nn.Module, owners: list[tuple[str, str]]) -> dict[Path, Any]:
    found: dict[Path, Any] = {}
    parts = dict(module.named_modules()) if owners else {}
    seen = {id(part) for part in parts.values()}
    for name, attribute in owners:
        if name in parts and attribute in vars(parts[name]):
            search((name, attribute), vars(parts[name])[attribute], found, seen, _DEEPEST)
    return found


def _name(path: Path) -> str:
    return ".".join(str(step) for step in path if step != "")
