"""What a resume reads of a checkpoint, which must have been loaded. Hyper-parameters are not among it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from checkpointable._errors import NotLoadedError
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.callbacks import callbacks
from checkpointable.policy.names import KEY
from checkpointable.storage.format.placeholder import placeholders_in

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_SHOWN = 5


def require_loaded(trainer: Trainer, checkpoint: Mapping[str, Any], path: str) -> None:
    """Check that no placeholder is in what this trainer restores.

    Raises:
        NotLoadedError: If one is. The message names where it is.
    """
    found = [(at, made) for name, part in _parts(trainer, checkpoint) for at, made in placeholders_in(part, name)]
    if found:
        lines = [f"  checkpoint{at} is made by {made.name}" for at, made in found[:_SHOWN]]
        more = [f"  and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        raise NotLoadedError(
            f"cannot restore the state in {path}: values that it needs are not loaded, because that can run code from"
            " the file.\n" + "\n".join(lines + more) + "\nIf you trust the file, pass weights_only=False to the"
            " trainer's method. Or save plain values there (numbers, strings, lists, dicts, tensors)."
        )


def _parts(trainer: Trainer, checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    keys = ["state_dict"]
    if internals.is_fitting(trainer):
        owners = (trainer.precision_plugin, getattr(trainer, "datamodule", None))
        keys += ["optimizer_states", "lr_schedulers", "loops", KEY, *(type(it).__qualname__ for it in owners)]
        states = checkpoint.get("callbacks", {})
        present = {callback.state_key for callback in callbacks(trainer)}
        yield from ((f"['callbacks'][{key!r}]", states[key]) for key in states if key in present)
    yield from ((f"[{key!r}]", checkpoint[key]) for key in keys if key in checkpoint)
