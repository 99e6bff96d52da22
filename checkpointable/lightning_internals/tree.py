"""Which of Lightning's two trees a thing is of, and that tree's classes by their names.

The same classes exist twice: in ``lightning.pytorch`` with ``lightning.fabric``, and in ``pytorch_lightning`` with
``lightning_fabric``. An instance of one tree's class is no instance of the other's. Neither tree is imported before it
is asked for.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

from checkpointable._errors import LightningVersionError
from checkpointable.lightning_internals.names import IMPORTED

_PLACES = {path.rpartition(".")[2]: path.rpartition(".")[0] for path in IMPORTED}


@dataclass(frozen=True)
class Tree:
    """One of Lightning's two trees, by the names of its packages."""

    pytorch: str
    fabric: str


TREES = (Tree("lightning.pytorch", "lightning.fabric"), Tree("pytorch_lightning", "lightning_fabric"))


def tree_of(thing: object) -> Tree:
    """The tree that an instance or a class is of.

    Raises:
        LightningVersionError: If it is of neither.
    """
    cls = thing if isinstance(thing, type) else type(thing)
    tree = _tree_of(cls)
    if tree is None:
        known = " and ".join(tree.pytorch for tree in TREES)
        raise LightningVersionError(f"{cls.__qualname__} is no class of Lightning: checkpointable knows {known}.")
    return tree


def find(owner: object, name: str) -> Any:
    """Return the class or function of this name in the tree that ``owner`` is of.

    Raises:
        LightningVersionError: If that tree has none.
    """
    return load(tree_of(owner), name)


def is_a(thing: object, *names: str) -> bool:
    """Whether a thing is an instance of one of these classes, in whichever tree it is of."""
    cls: Any = type(thing)
    tree = _tree_of(cls)
    return tree is not None and any(isinstance(thing, load(tree, name)) for name in names)


def set_sampler_epoch(loader: Any, epoch: int) -> None:
    """Set the epoch of a loader's samplers as Lightning does. They are torch's, so that either tree will do."""
    tree = next(tree for tree in TREES if tree.pytorch in sys.modules)
    load(tree, "_set_sampler_epoch")(loader, epoch)


@cache
def load(tree: Tree, name: str) -> Any:
    """Import a class or function of a tree by its name in ``names.IMPORTED``.

    Raises:
        LightningVersionError: If the tree has none.
    """
    package, _, inner = _PLACES[name].partition(".")
    module = ".".join(filter(None, (getattr(tree, package), inner)))
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise missing(tree, f"{module}.{name}") from error


def missing(tree: Tree, name: str) -> LightningVersionError:
    """Return the error for a name that a tree lacks."""
    return unsuitable(tree, f"has no {name}, which checkpointable needs")


def unsuitable(tree: Tree, problem: str) -> LightningVersionError:
    """Return the error for a tree that the library can't work with."""
    version = getattr(import_module(tree.pytorch), "__version__", "(version unknown)")
    return LightningVersionError(
        f"{tree.pytorch} {version} {problem}."
        " Install a version it was tested with: pip install 'lightning>=2.6.6,<2.7'."
    )


@lru_cache(maxsize=1024)
def _tree_of(cls: Any) -> Tree | None:
    for base in cls.__mro__:
        for tree in TREES:
            if f"{base.__module__}.".startswith((f"{tree.pytorch}.", f"{tree.fabric}.")):
                return tree
    return None
