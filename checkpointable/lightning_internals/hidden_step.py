"""A ``validation_step`` that is hidden from Lightning while there is no validation loader."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING

from checkpointable.lightning_internals.tree import find

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_HIDDEN = "_checkpointing_hidden_step"


def has_val_loader(trainer: Trainer) -> bool:
    """Whether a validation loader was given, to ``fit``, in the module or in a data module."""
    return bool(trainer.fit_loop.epoch_loop.val_loop._data_source.is_defined())


def hide_validation_step(module: LightningModule) -> None:
    """Hide ``validation_step`` from Lightning until ``show_validation_step``.

    Where a base class defines it and there is no loader, Lightning warns that the loader is missing, and its batch size
    finder asks for it.
    """
    attributes = module.__dict__
    attributes.setdefault(_HIDDEN, attributes.get("validation_step"))
    attributes["validation_step"] = MethodType(find(module, "LightningModule").validation_step, module)


def show_validation_step(module: LightningModule) -> None:
    """Undo ``hide_validation_step``. A step that ``torch.compile`` had set on the instance is set again."""
    attributes = module.__dict__
    if _HIDDEN in attributes:
        compiled = attributes.pop(_HIDDEN)
        del attributes["validation_step"]
        if compiled is not None:
            attributes["validation_step"] = compiled
