"""What ``from_script`` asks for: it is left out of the checkpoint before Lightning restores from it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.from_script import NUMBERS, Part
from checkpointable.policy.names import KEY
from checkpointable.policy.position import Ended
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume.state import RunState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_LIMITS = (
    *("limit_train_batches", "limit_val_batches", "overfit_batches", "reload_dataloaders_every_n_epochs"),
    "validation loaders",
)
_SETTINGS = {  # that a resume does not compare where the part is the script's
    Part.OPTIMIZERS: ("optimizers", "optimizer_parameters"),
    Part.LR_SCHEDULERS: ("lr_schedulers",),
    Part.DATA: _LIMITS,
}
_JUDGED = {Part.DATA: "position in the data", Part.RANDOMNESS: "randomness"}  # the verdicts that no longer apply
_SAID = {
    Part.OPTIMIZERS: ("optimizers", "(script)"),
    Part.LR_SCHEDULERS: ("lr_schedulers", "(script), from their start"),
    Part.DATA: ("data", "(script), from the next epoch on"),
    Part.RANDOMNESS: ("randomness", "(script)"),
    Part.CALLBACKS: ("callbacks", "(script)"),
}


def leave_out(trainer: Trainer, checkpoint: dict[str, Any], parts: frozenset[Part]) -> None:
    """Leave out of a loaded checkpoint what comes from the script, as far as no optimizer is needed for it."""
    if not parts:
        return
    state = checkpoint[KEY] = dict(checkpoint[KEY])
    left_out = [name for part in parts for name in _SETTINGS.get(part, ())]
    state["settings"] = {name: value for name, value in state["settings"].items() if name not in left_out}
    if Part.CALLBACKS in parts:
        checkpoint["callbacks"] = None  # Lightning then restores none, and calls none of their hooks for it
        state["stopped_early"] = False
    if Part.DATA in parts:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set where mypy does not look
        checkpoint.pop(type(data).__qualname__, None)
        _end_epoch(checkpoint, state)


def _end_epoch(checkpoint: dict[str, Any], state: dict[str, Any]) -> None:
    """Let the epoch that was interrupted count as ended, and forget where its loaders stood."""
    inside = internals.ended(checkpoint) == Ended.BATCH
    if inside:
        internals.end_epoch(checkpoint)
        state.update(ended=Ended.EPOCH.value, gradients={})
    new: dict[str, Any] = {"training": [], "validation": [], **({"metrics": {}} if inside else {})}
    state["ranks"] = [{**rank, **new} for rank in state["ranks"]]
    state["skipped"] = inside


def end_schedules(trainer: Trainer, state: RunState, parts: frozenset[Part]) -> None:
    """Step the schedulers that count epochs for an epoch that was interrupted and counts as ended."""
    module = trainer.lightning_module
    if not state.skipped or Part.LR_SCHEDULERS in parts or not module.automatic_optimization:
        return
    for config in trainer.lr_scheduler_configs:
        is_due = config.interval == "epoch" and (state.position.epoch + 1) % config.frequency == 0
        if is_due and not config.reduce_on_plateau:
            with warnings.catch_warnings():  # torch warns where an optimizer has not stepped in this process
                warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before")
                module.lr_scheduler_step(config.scheduler, None)


def used(script: Mapping[str, Any], file: Mapping[str, Any], parts: frozenset[Part]) -> dict[str, Any]:
    """The numbers of optimizers and schedulers that are used, as they were made."""
    found = {**script, **file}
    if not parts.isdisjoint(NUMBERS):
        found["optimizers"] = script["optimizers"]
    if Part.LR_SCHEDULERS in parts:
        found["lr_schedulers"] = script["lr_schedulers"]
    return found


def judged(verdicts: Iterable[Verdict], parts: frozenset[Part]) -> list[Verdict]:
    """The verdicts, with those of these parts in the place of what no longer applies."""
    replaced = {_JUDGED[part] for part in parts if part in _JUDGED}
    asked = [Verdict(_SAID[part][0], Level.ASKED, _SAID[part][1]) for part in Part if part in parts and part in _SAID]
    return [*(verdict for verdict in verdicts if verdict.part not in replaced), *asked]
