"""The numbers of the parameter groups where a resume takes them, the schedulers or the optimizers from the script.

A learning rate that is copied is undone by the next step of a ``LambdaLR``. So the present rate is scaled by the
initial one of the script over that of the file, and the schedulers get the script's initial rates to start from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from checkpointable.policy.from_script import NUMBERS, Part
from checkpointable.storage.format.same import same

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_RATES = ("params", "lr", "initial_lr")
_BOUNDS = ("max_lr", "min_lr", "max_momentum", "base_momentum")  # which a scheduler writes into the groups


def set_numbers(
    trainer: Trainer,
    loaded: dict[str, Any],
    file: Mapping[str, Any],
    script: Mapping[str, Any],
    parts: frozenset[Part],
) -> None:
    """Set in a loaded checkpoint, or in new optimizers and schedulers, the numbers that are used.

    Args:
        trainer: With optimizers and schedulers as the script made them.
        loaded: Lightning restores optimizers and schedulers from it next.
        file: The numbers of the run that saved it, as they were made; see ``script_values.made``.
        script: Those of the script.
        parts: What comes from the script.
    """
    new_schedules = Part.LR_SCHEDULERS in parts
    if parts.isdisjoint({*NUMBERS, Part.LR_SCHEDULERS}):
        return
    factors = {id(it): [1.0] * len(it.param_groups) for it in trainer.optimizers}
    states = []
    for optimizer, saved, then, now in zip(
        trainer.optimizers, loaded["optimizer_states"], file["optimizers"], script["optimizers"], strict=False
    ):
        factors[id(optimizer)] = [_factor(*pair) for pair in zip(then, now, strict=False)]
        groups = list(zip(saved["param_groups"], optimizer.param_groups, then, now, strict=False))
        if parts.isdisjoint(NUMBERS):
            changed = [_with_new_schedule(*group) for group in groups]
        else:
            changed = [_with_script_numbers(*group, new_schedule=new_schedules) for group in groups]
        if Part.OPTIMIZERS in parts:
            is_scheduled = any(config.scheduler.optimizer is optimizer for config in trainer.lr_scheduler_configs)
            for group, numbers in zip(optimizer.param_groups, changed if is_scheduled else (), strict=False):
                group["lr"] = numbers["lr"]
        states.append({**saved, "param_groups": [*changed, *saved["param_groups"][len(changed) :]]})
    loaded["optimizer_states"] = [] if Part.OPTIMIZERS in parts else states
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    if not new_schedules:
        pairs = zip(schedulers, loaded["lr_schedulers"], strict=False)
        loaded["lr_schedulers"] = [_rebased(it, saved, factors[id(it.optimizer)]) for it, saved in pairs]
        return
    loaded["lr_schedulers"] = []
    for scheduler in schedulers if parts.isdisjoint(NUMBERS) else ():
        _rebase(scheduler, factors[id(scheduler.optimizer)])


def _factor(then: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """The initial rate of the script over that of the file; 1 where there is no such number."""
    was, given = then.get("lr"), now.get("lr")
    return 1.0 if not was or given is None else given / was


def _with_script_numbers(
    saved: Mapping[str, Any],
    group: Mapping[str, Any],
    then: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    new_schedule: bool,
) -> dict[str, Any]:
    """A saved parameter group with the script's numbers; those that are no others than before stay where they are."""
    changed = {name: group[name] for name in group if name not in _RATES and not same(then.get(name), now.get(name))}
    rates = {"initial_lr": group["initial_lr"]} if "initial_lr" in group else {}
    scaled = saved["lr"] * _factor(then, now) if then.get("lr") else group["lr"]
    return {**saved, **changed, **rates, "lr": group["lr"] if new_schedule else scaled}


def _with_new_schedule(
    saved: Mapping[str, Any], group: Mapping[str, Any], then: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, Any]:
    """A saved parameter group at the start of the script's schedule, from the file's initial rate.

    A schedule that sets bounds of its own decides the initial rate, too.
    """
    bounds = {name: group[name] for name in _BOUNDS if name in group}
    if bounds:
        return {**saved, **bounds, "lr": group["lr"], "initial_lr": group["initial_lr"]}
    factor = _factor(then, now)
    initial = {"initial_lr": then["lr"]} if "initial_lr" in group else {}
    return {**saved, **initial, "lr": group["lr"] / factor if factor else then["lr"]}


def _rebased(scheduler: Any, saved: Mapping[str, Any], factors: Sequence[float]) -> dict[str, Any]:
    """A scheduler's saved state with the initial rates of the script, also of the schedulers inside it."""
    changed = dict(saved)
    if "base_lrs" in saved:
        changed["base_lrs"] = list(scheduler.base_lrs)
    if "_last_lr" in saved:
        changed["_last_lr"] = [rate * factor for rate, factor in zip(saved["_last_lr"], factors, strict=False)]
    if "_schedulers" in saved:
        inside = zip(scheduler._schedulers, saved["_schedulers"], strict=False)
        changed["_schedulers"] = [_rebased(*pair, factors) for pair in inside]
    return changed


def _rebase(scheduler: Any, factors: Sequence[float]) -> None:
    """Let a new scheduler start from the initial rates of the file."""
    for name in ("base_lrs", "_last_lr"):
        rates = getattr(scheduler, name, None)
        if rates is not None and "max_lr" not in scheduler.optimizer.param_groups[0]:
            rescaled = [rate / factor if factor else rate for rate, factor in zip(rates, factors, strict=False)]
            setattr(scheduler, name, rescaled)
    for inside in getattr(scheduler, "_schedulers", ()):
        _rebase(inside, factors)
