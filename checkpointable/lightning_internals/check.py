"""The check, before a trainer is used, that Lightning has every name this room uses."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from inspect import getattr_static
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals.names import IMPORTED, METADATA_FIELDS, OF_CLASSES, OF_TRAINER
from checkpointable.lightning_internals.tree import Tree, load, missing, tree_of, unsuitable

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_ABSENT = object()


def check(trainer: Trainer) -> None:
    """Look for every name in ``names``, on this trainer and in the tree that it is of.

    Raises:
        LightningVersionError: If one is missing, or if Lightning logs something that the library doesn't save.
    """
    tree = tree_of(trainer)
    for path in OF_TRAINER:
        if not _has(trainer, path):
            raise missing(tree, f"Trainer.{path}")
    _check_classes(tree)


@cache
def _check_classes(tree: Tree) -> None:
    """The part that is the same for every trainer of a tree. Done once; an exception is not remembered."""
    for path in IMPORTED:
        load(tree, path.rpartition(".")[2])
    try:
        examples = _examples(tree)
    except TypeError as error:
        raise unsuitable(tree, f"takes other arguments than checkpointable gives: {error}") from error
    for path in OF_CLASSES:
        name, _, attribute = path.partition(".")
        if not _has(examples[name], attribute):
            raise missing(tree, path)
    fields_now = {field.name for field in fields(examples["_Metadata"])}
    differing = sorted(fields_now ^ {*METADATA_FIELDS, "reduce_fx", "_sync"})
    if differing:
        raise unsuitable(tree, f"logs values with other fields than checkpointable saves ({', '.join(differing)})")


def _examples(tree: Tree) -> dict[str, Any]:
    """An instance of each class in ``OF_CLASSES``: many attributes are set by ``__init__``."""
    metadata = load(tree, "_Metadata")("on_step", "name")
    return {
        "CombinedLoader": load(tree, "CombinedLoader")([]),
        "LightningModule": load(tree, "LightningModule")(),
        "ModelCheckpoint": load(tree, "ModelCheckpoint")(),
        "TorchCheckpointIO": load(tree, "TorchCheckpointIO")(),
        "_MaxSizeCycle": load(tree, "_MaxSizeCycle")([]),
        "_Metadata": metadata,
        "_ResultMetric": load(tree, "_ResultMetric")(metadata, is_tensor=True),
        "_Sync": load(tree, "_Sync")(),
    }


def _has(owner: Any, path: str) -> bool:
    """Whether ``owner`` has the attribute at the end of a dotted path. That last attribute is not evaluated."""
    *between, last = path.split(".")
    for name in between:
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return getattr_static(owner, last, _ABSENT) is not _ABSENT
