"""A ``validation_step`` that Lightning does not see where nothing is to be validated: private seams of it, too."""

from __future__ import annotations

from types import MethodType

from lightning.pytorch import LightningModule, Trainer

_HIDDEN = "_checkpointing_hidden_step"


def has_val_loader(trainer: Trainer) -> bool:
    """Whether a validation loader was given, by whatever way."""
    return bool(trainer.fit_loop.epoch_loop.val_loop._data_source.is_defined())


def hide_validation_step(module: LightningModule) -> None:
    """Let Lightning see no ``validation_step``, until ``show_validation_step``.

    Where it comes from a base class and there is no loader for it, Lightning would warn of the missing loader, and its
    batch size finder would ask for it.
    """
    attributes = module.__dict__
    attributes.setdefault(_HIDDEN, attributes.get("validation_step"))
    attributes["validation_step"] = MethodType(LightningModule.validation_step, module)


def show_validation_step(module: LightningModule) -> None:
    """Undo ``hide_validation_step``; also what it hid of ``torch.compile``."""
    attributes = module.__dict__
    if _HIDDEN in attributes:
        compiled = attributes.pop(_HIDDEN)
        del attributes["validation_step"]
        if compiled is not None:
            attributes["validation_step"] = compiled
