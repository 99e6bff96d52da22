"""The random generators in a module and its parts: found, captured and restored.

Looked at are attributes, and what is inside of those that are no modules: lists, dictionaries and objects of the user.
The limits are those of ``owned_rng``, and one on the depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume.generator_states import set_state, state_of
from checkpointable.resume.owned_rng import Path, search

_DEEPEST = 6
_OURS = "_checkpointing"
_OF_TORCH = frozenset(vars(torch.nn.Module()))
_PLAIN = {type(None), bool, int, float, str}


def capture(module: torch.nn.Module) -> dict[str, Any]:
    """Their states, by where each is found. They are searched for each time: a module may make one at any step."""
    return {at: state_of(generator) for at, generator in _generators(module).items()}


def restore(module: torch.nn.Module, saved: Mapping[str, Any]) -> None:
    """Set the generators of a module to these states. Those that do not exist are left out."""
    for at, generator in _generators(module).items() if saved else ():
        if at in saved:
            set_state(generator, saved[at])


def verdicts(module: torch.nn.Module, saved: Mapping[str, Any]) -> Iterator[Verdict]:
    """How exactly the generators of a module resume from these states."""
    now = _generators(module).keys()
    for at in sorted(now ^ saved.keys()):
        why = "it was not there when saved" if at in now else "it does not exist here"
        yield Verdict(f"random generator {at!r}", Level.APPROXIMATE, why)
    if now and now == saved.keys():
        yield Verdict("generators of the module", Level.EXACT, "set to their states in the file")


def _generators(module: torch.nn.Module) -> dict[str, Any]:
    """The generators, by where each is found."""
    found: dict[Path, Any] = {}
    seen: set[int] = set()
    parts = dict(module.named_modules())
    seen.update(map(id, parts.values()))
    for name, part in parts.items():
        attributes = vars(part)
        for attribute in [it for it in attributes if it not in _OF_TORCH]:
            value = attributes[attribute]
            if not _is_plain(value) and not attribute.startswith(_OURS):
                search((name, attribute), value, found, seen, _DEEPEST)
    return {_name(path): generator for path, generator in found.items()}


def _is_plain(value: Any) -> bool:
    """Whether there is no generator in it: the attributes of most modules are numbers, or tuples of them."""
    return type(value) in _PLAIN or (type(value) is tuple and _PLAIN.issuperset(map(type, value)))


def _name(path: Path) -> str:
    """Two places are never called the same, also where a key of a dictionary has a dot."""
    inside = (f".{step}" if str(step).isidentifier() else f"[{step!r}]" for step in path[2:])
    return ".".join(filter(None, path[:2])) + "".join(inside)
