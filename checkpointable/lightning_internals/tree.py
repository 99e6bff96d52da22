"""Which of Lightning's two trees a thing is of, and that tree's classes by their names.

The same classes exist twice: in ``lightning.pytorch`` with ``lightning.fabric``, and in ``pytorch_lightning`` with
``lightning_fabric``. An instance of one tree's class is no instance of the other's. Neither tree is imported before it
is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cache, lru_cache, reduce
from importlib import import_module
from inspect import getattr_static
from typing import TYPE_CHECKING, Any, SupportsIndex

from checkpointable._errors import LightningVersionError
from checkpointable.lightning_internals.names import IMPORTED, METADATA_FIELDS, OF_CLASSES, OF_TRAINER

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_PLACES = {path.rpartition(".")[2]: path.rpartition(".")[0] for path in IMPORTED}


@dataclass(frozen=True)
class Tree:
    """One of Lightning's two trees, by the names of its packages."""

    pytorch: str
    fabric: str


TREES = (Tree("lightning.pytorch", "lightning.fabric"), Tree("pytorch_lightning", "lightning_fabric"))


def tree_of(thing: object) -> Tree:
    """The tree that an instance or a class is of; ``LightningVersionError`` if it is of neither."""
    cls = thing if isinstance(thing, type) else type(thing)
    tree = _tree_of(cls)
    if tree is None:
        known = " and ".join(tree.pytorch for tree in TREES)
        raise LightningVersionError(f"{cls.__qualname__} is no class of Lightning: checkpointable knows {known}.")
    return tree


def find(owner: object, name: str) -> Any:
    """The class or function of this name in the tree that ``owner`` is of."""
    return load(tree_of(owner), name)


def is_a(thing: object, *names: str) -> bool:
    """Whether a thing is an instance of one of these classes, in whichever tree it is of."""
    cls: Any = type(thing)
    tree = _tree_of(cls)
    return tree is not None and any(isinstance(thing, load(tree, name)) for name in names)


def version_of(owner: object) -> dict[str, str]:
    """The name of the package that ``owner``'s tree comes in, and its version."""
    package = tree_of(owner).pytorch.partition(".")[0]
    return {package: str(import_module(package).__version__)}


def refuse_mixture(trainer: Trainer, things: Iterable[object]) -> None:
    """Refuse a trainer's parts that are of the other tree.

    Raises:
        LightningVersionError: If there is one. Lightning looks for its classes with ``isinstance``, and finds them not.
    """
    ours = tree_of(trainer)
    for thing in things:
        cls: Any = type(thing)
        theirs = _tree_of(cls)
        if theirs is not None and theirs != ours:
            raise LightningVersionError(
                f"the trainer is of {ours.pytorch}, and {cls.__qualname__} in it of {theirs.pytorch}: their classes"
                f" have the same names and do not work together. Import it from {ours.pytorch}."
            )


def set_sampler_epoch(loader: Any, epoch: int) -> None:
    """Set the epoch of a loader's samplers as Lightning does. They are torch's, so that either tree will do."""
    tree = next(tree for tree in TREES if tree.pytorch in sys.modules)
    load(tree, "_set_sampler_epoch")(loader, epoch)


@cache
def load(tree: Tree, name: str) -> Any:
    """Import a class or function of a tree by its name in ``names.IMPORTED``; ``LightningVersionError`` without it."""
    package, _, inner = _PLACES[name].partition(".")
    module = ".".join(filter(None, (getattr(tree, package), inner)))
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise _missing(tree, f"{module}.{name}") from error


def _missing(tree: Tree, name: str) -> LightningVersionError:
    return _unsuitable(tree, f"has no {name}, which checkpointable needs")


def _unsuitable(tree: Tree, problem: str) -> LightningVersionError:
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


def check(trainer: Trainer) -> None:
    """Look for every name in ``names``, on this trainer and in the tree that it is of.

    Raises:
        LightningVersionError: If one is missing, or if Lightning logs something that the library doesn't save.
    """
    tree = tree_of(trainer)
    for path in OF_TRAINER:
        _require(tree, "Trainer", trainer, path)
    _check_classes(tree)


@cache
def _check_classes(tree: Tree) -> None:
    """The part that is the same for every trainer of a tree. Done once; an exception is not remembered."""
    for path in IMPORTED:
        load(tree, path.rpartition(".")[2])
    if "ckpt_path" not in load(tree, "Trainer")._run.__code__.co_varnames:  # see connector.given_path
        raise _missing(tree, "argument ckpt_path of Trainer._run")
    try:
        examples = _examples(tree)
    except TypeError as error:
        raise _unsuitable(tree, f"takes other arguments than checkpointable gives: {error}") from error
    for path in OF_CLASSES:
        name, _, attribute = path.partition(".")
        _require(tree, name, examples[name], attribute)
    fields_now = {field.name for field in fields(examples["_Metadata"])}
    differing = sorted(fields_now ^ {*METADATA_FIELDS, "reduce_fx", "_sync"})
    if differing:
        raise _unsuitable(tree, f"logs values with other fields than checkpointable saves ({', '.join(differing)})")


def _examples(tree: Tree) -> dict[str, Any]:
    """An instance of each class in ``OF_CLASSES``: many attributes are set by ``__init__``."""
    metadata = load(tree, "_Metadata")("on_step", "name")
    arguments: dict[str, tuple[Any, ...]] = {
        "CombinedLoader": ([],),
        "StochasticWeightAveraging": (0.1,),
        "_ChildProcessObserver": (0, []),
        "_MaxSizeCycle": ([],),
        "_Metadata": ("on_step", "name"),
        "_ResultMetric": (metadata, True),
    }
    names = {path.partition(".")[0] for path in OF_CLASSES}
    return {name: load(tree, name)(*arguments.get(name, ())) for name in names}


def _require(tree: Tree, name: str, owner: Any, path: str) -> None:
    """Raise if the owner lacks the attribute at the end of a dotted path. That last attribute is not evaluated."""
    *between, last = path.split(".")
    try:
        getattr_static(reduce(getattr, between, owner), last)
    except AttributeError as error:
        raise _missing(tree, f"{name}.{path}") from error


def is_overridden(owner: object, *methods: str) -> bool:
    """Whether user code has one of these methods, and not only Lightning or we."""
    known = ("lightning", "pytorch_lightning", "checkpointable")
    found = [getattr(type(owner), method, None) for method in methods]
    return any(method is not None and method.__module__.partition(".")[0] not in known for method in found)


class Mixin:
    """Base of the classes that ``combined`` puts in front of others. What it makes can be pickled and copied.

    Attributes:
        names_the_class: Whether the combined class has the name of this one, and not that of the other.
    """

    names_the_class = False

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """As usual, but with the two classes in place of the combined one, which has no name to import it by."""
        cls = type(self)
        reduced: Any = super().__reduce_ex__(protocol)
        function, arguments, *state = reduced
        if arguments[0] is not cls:  # a user's class that pickles in a way of its own
            return reduced
        mixin, base = cls.__bases__
        return (_rebuild, (mixin, base, function, arguments[1:]), *state)


_combined: dict[tuple[type, type], type] = {}


def combined(mixin: type[Mixin], base: type) -> type[Any]:
    """The subclass of both, with ``mixin`` first. Most have the name of ``base``, which profilers print."""
    if (mixin, base) not in _combined:
        named = mixin if mixin.names_the_class else base
        _combined[mixin, base] = type(named.__name__, (mixin, base), {})
    return _combined[mixin, base]


def put_before(mixin: type[Mixin], thing: object) -> None:
    """Let ``mixin`` override methods of this one instance. Doing it again changes nothing."""
    if not isinstance(thing, mixin):
        thing.__class__ = combined(mixin, type(thing))


def _rebuild(mixin: type[Mixin], base: type, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(combined(mixin, base), *arguments)
