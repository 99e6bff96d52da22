"""Restores optimizers by the names of their parameters, where ``strict_loading=False`` lets the module have changed.

The state of an optimizer holds no names, only numbers in the order of its parameter groups. So our files store the
names and shapes in that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import is_lazy

from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume.state import RunState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_BY_GROUP = ("base_lrs", "_last_lr", "min_lrs")  # what schedulers hold for each parameter group
_SHOWN = 3

Groups = Sequence[Sequence[Any]]  # of each parameter of each group: its name and its shape


def names_of(trainer: Trainer) -> list[list[list[Any]]]:
    """The names and shapes of each optimizer's parameters, by group; an empty name for one that the module lacks."""
    names = {id(weight): name for name, weight in trainer.lightning_module.named_parameters()}
    return [
        [[[names.get(id(it), ""), list(it.shape)] for it in group["params"]] for group in optimizer.param_groups]
        for optimizer in trainer.optimizers
    ]


def leave_out_misfits(module: torch.nn.Module, checkpoint: dict[str, Any]) -> None:
    """Leave out of a checkpoint the weights that have another shape in the module: loading them would raise."""
    shapes = {name: value.shape for name, value in module.state_dict().items() if _has_shape(value)}
    checkpoint["state_dict"] = {
        name: value
        for name, value in checkpoint["state_dict"].items()
        if not _has_shape(value) or shapes.get(name, value.shape) == value.shape
    }


def _has_shape(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not is_lazy(value)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What was changed in a checkpoint so that it fits the optimizers of the script.

    Attributes:
        made: The numbers of the file as they were made, in the groups of the script; see ``script_values.made``.
        verdicts: Which parameters have no state in the file, and which have it there and are gone.
    """

    made: Mapping[str, Any]
    verdicts: Sequence[Verdict]


def fit_state(
    trainer: Trainer, loaded: dict[str, Any], state: RunState, now: Mapping[str, Any]
) -> tuple[RunState, Sequence[Verdict]]:
    """Let a checkpoint fit, and return the state of the run that goes with it; see ``fit``."""
    fitted = fit(trainer, loaded, state.parameters, state.made, now)
    if fitted is None:
        return state, ()
    settings = {name: value for name, value in state.settings.items() if name != "optimizer_parameters"}
    return replace(state, made=fitted.made, settings=settings), fitted.verdicts


def fit(
    trainer: Trainer, loaded: dict[str, Any], saved: Sequence[Groups], made: Mapping[str, Any], now: Mapping[str, Any]
) -> Fitted | None:
    """Change the states of optimizers and schedulers in a checkpoint so that they fit, by name, those of the script.

    Args:
        trainer: With optimizers and schedulers as the script made them.
        loaded: Lightning restores optimizers and schedulers from it next.
        saved: What ``names_of`` gave for the file.
        made: The numbers of the file as they were made; see ``script_values.made``.
        now: Those of the script.

    Returns:
        ``None`` if nothing has changed, or the number of optimizers has.
    """
    present = names_of(trainer)
    if list(saved) == present or not len(saved) == len(present) == len(loaded["optimizer_states"]):
        return None
    sources, states, new, gone = {}, [], [], []
    for optimizer, state, before, after in zip(
        trainer.optimizers, loaded["optimizer_states"], saved, present, strict=True
    ):
        source = [_most_alike(group, before) for group in after]
        sources[id(optimizer)] = source
        states.append(_by_name(optimizer, state, before, after, source))
        known, wanted = _keys(before), _keys(after)
        new += [name for name, shape in wanted if (name, shape) not in known]
        gone += [name for name, shape in known if (name, shape) not in wanted]
    loaded["optimizer_states"] = states
    pairs = zip(trainer.lr_scheduler_configs, loaded["lr_schedulers"], strict=False)
    loaded["lr_schedulers"] = [_by_group(it.scheduler, old, sources[id(it.scheduler.optimizer)]) for it, old in pairs]
    groups = zip(sources.values(), made["optimizers"], now["optimizers"], strict=True)
    numbers = [
        [ours if at is None else was[at] for at, ours in zip(source, given, strict=True)]
        for source, was, given in groups
    ]
    return Fitted(made={**made, "optimizers": numbers}, verdicts=_verdicts(new, gone))


def _keys(groups: Groups) -> dict[tuple[str, tuple[int, ...]], None]:
    return {(name, tuple(shape)): None for group in groups for name, shape in group}


def _most_alike(group: Sequence[Any], before: Groups) -> int | None:
    """The place of the saved group that has the most names in common with this one; ``None`` if none has any."""
    names = {name for name, _ in group}
    common = [len(names & {name for name, _ in old}) for old in before]
    return common.index(max(common)) if any(common) else None


def _by_name(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], before: Groups, after: Groups, source: Sequence[Any]
) -> dict[str, Any]:
    """The saved state in the groups and the order of the script; a parameter that is new has none."""
    numbers = {
        (name, tuple(shape)): number
        for group, old in zip(before, state["param_groups"], strict=True)
        for (name, shape), number in zip(group, old["params"], strict=True)
    }
    fresh = optimizer.state_dict()["param_groups"]
    found: dict[int, Any] = {}
    for group, names in zip(fresh, after, strict=True):
        for number, (name, shape) in zip(group["params"], names, strict=True):
            old = numbers.get((name, tuple(shape)))
            if old in state["state"]:
                found[number] = state["state"][old]
    progress = _progress(state["param_groups"])
    groups = [
        {**group, "lr": group.get("initial_lr", group["lr"]) * progress}
        if at is None
        else {**state["param_groups"][at], **{key: group[key] for key in ("params", "param_names") if key in group}}
        for at, group in zip(source, fresh, strict=True)
    ]
    return {**state, "state": found, "param_groups": groups}


def _progress(groups: Sequence[Mapping[str, Any]]) -> float:
    """The share of the initial rate at which a schedule stands, for a group that is new."""
    initial = groups[0].get("initial_lr") if groups else None
    return float(groups[0]["lr"] / initial) if initial else 1.0


def _by_group(scheduler: Any, saved: Mapping[str, Any], source: Sequence[int | None]) -> dict[str, Any]:
    """A scheduler's saved state with the groups of the script, also in the schedulers inside it."""
    changed = dict(saved)
    for name in _BY_GROUP:
        fresh = getattr(scheduler, name, ())
        if name in saved and len(fresh) == len(source):
            old = saved[name]
            changed[name] = [ours if at is None else old[at] for at, ours in zip(source, fresh, strict=True)]
    if "_schedulers" in saved:
        inside = zip(scheduler._schedulers, saved["_schedulers"], strict=False)
        changed["_schedulers"] = [_by_group(*pair, source) for pair in inside]
    return changed


def _verdicts(new: Sequence[str], gone: Sequence[str]) -> list[Verdict]:
    said = ((new, "new, so without state"), (gone, "only in the file, so its state is dropped"))
    return [Verdict("optimizers", Level.APPROXIMATE, f"{_listed(names)}: {why}") for names, why in said if names]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
