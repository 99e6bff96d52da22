"""The numbers that a script gives its training, compared with those of the run that it resumes.

The numbers of optimizers and schedulers are compared as ``configure_optimizers`` made them: where a schedule has moved
the learning rate since, nothing differs. Lightning restores them from the file. Hyper-parameters it leaves to the
script.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from checkpointable.policy.from_script import NUMBERS, Part
from checkpointable.policy.options import Options
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.storage.format import safe_load
from checkpointable.storage.format.placeholder import placeholders_in
from checkpointable.storage.format.same import same

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_WORDS = {"lr": "learning rate", "weight_decay": "weight decay"}
_MOVING = {"params", "param_names", "initial_lr", "base_lrs", "last_epoch", "optimizer_state_dict"}
_MISSING = object()


@dataclass(frozen=True)
class Difference:
    """A value that the script and the file do not agree on."""

    name: str
    in_file: Any
    in_script: Any
    uses_file: bool
    asked: bool = False

    def verdict(self) -> Verdict:
        """Which of the two is used."""
        script, file = _text(self.in_script), _text(self.in_file)
        if self.asked:
            return Verdict(self.name, Level.ASKED, f"{_short(self.in_script)} (script), was {_short(self.in_file)}")
        if self.uses_file:
            return Verdict(self.name, Level.FROM_FILE, f"{file} from the file, the script says {script}")
        return Verdict(self.name, Level.FROM_SCRIPT, f"{script} from the script, the file says {file}")

    def __str__(self) -> str:
        return f"{self.name} {_text(self.in_script)}, the file says {_text(self.in_file)}"


@dataclass(frozen=True, kw_only=True)
class ScriptValues:
    """What a script gives, or gave, its training.

    Attributes:
        made: The numbers of each optimizer's parameter groups and of each scheduler, as they were made.
        hyper_parameters: Those that the module and the data module save; not this library's own arguments.
    """

    made: Mapping[str, Any]
    hyper_parameters: Mapping[str, Any]

    @classmethod
    def in_file(cls, made: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> ScriptValues:
        """Those of the run that saved this checkpoint."""
        owners = [checkpoint.get(key, {}) for key in ("datamodule_hyper_parameters", "hyper_parameters")]
        return cls(made=made, hyper_parameters=_without_own(owners))

    @classmethod
    def of(cls, trainer: Trainer, made: Mapping[str, Any]) -> ScriptValues:
        """Those of the script that is running."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set where mypy does not look
        owners = [getattr(owner, "hparams", {}) for owner in (data, trainer.lightning_module)]
        return cls(made=made, hyper_parameters=_without_own(owners))


def made(trainer: Trainer) -> dict[str, list[Any]]:
    """The present numbers of each optimizer's parameter groups, and of each scheduler."""
    optimizers = [[_numbers(_as_made(group)) for group in it.param_groups] for it in trainer.optimizers]
    schedulers = [_numbers(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs]
    return {"optimizers": optimizers, "lr_schedulers": schedulers}


def compare(
    file: ScriptValues, script: ScriptValues, parts: frozenset[Part] = frozenset()
) -> tuple[list[Difference], dict[str, Any]]:
    """What differs between the numbers as they were made, and between hyper-parameters.

    A hyper-parameter that differs in the same way as one of those numbers is where that number comes from. It is not
    listed a second time.

    Returns:
        The differences, and the hyper-parameters of the script that are not used, with the values of the file, which
        are.
    """
    of_optimizers, of_schedulers = _of_optimizers(file.made, script.made), _of_schedulers(file.made, script.made)
    if not parts.isdisjoint(NUMBERS):
        of_optimizers = (replace(it, uses_file=False, asked=True) for it in of_optimizers)
    if Part.LR_SCHEDULERS in parts:
        of_schedulers = (replace(it, uses_file=False, asked=True) for it in of_schedulers)
    numbers = [*of_optimizers, *of_schedulers]
    others, unused = [], {}
    for name, *pair in _differing(file.hyper_parameters, script.hyper_parameters):
        sources = [it for it in numbers if same(pair, (it.in_file, it.in_script))]
        if any(it.uses_file for it in sources):
            unused[name] = pair[0]
        elif not sources:
            others.append(Difference(name, pair[0], pair[1], uses_file=False))
    return [*numbers, *others], unused


def _differing(saved: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The hyper-parameters that are not the same: name, value in the file, value in the script."""
    for name in dict.fromkeys((*saved, *given)):
        then, now = saved.get(name, _MISSING), given.get(name, _MISSING)
        if not same(then, _as_loaded(now) if any(placeholders_in(then)) else now):
            yield name, then, now


def _as_loaded(value: Any) -> Any:
    """A value as it would be read from a file, with placeholders as there; as it is, if it cannot be saved."""
    with io.BytesIO() as file:
        try:
            torch.save(value, file)
        except (pickle.PicklingError, AttributeError, TypeError):
            return value
        file.seek(0)
        return safe_load.load(file, "", None, weights_only=None)


def _of_optimizers(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    optimizers = list(zip(then.get("optimizers", ()), now["optimizers"], strict=False))
    for number, (groups_then, groups_now) in enumerate(optimizers):
        groups = list(zip(groups_then, groups_now, strict=False))
        for place, (group_then, group_now) in enumerate(groups):
            where = f" of optimizers[{number}]" if len(optimizers) > 1 else ""
            where += f" of parameter group {place}" if len(groups) > 1 else ""
            yield from _between(group_then, group_now, where)


def _of_schedulers(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    schedulers = list(zip(then.get("lr_schedulers", ()), now["lr_schedulers"], strict=False))
    for number, (numbers_then, numbers_now) in enumerate(schedulers):
        where = f" of lr_schedulers[{number}]" if len(schedulers) > 1 else " of the scheduler"
        yield from _between(numbers_then, numbers_now, where)


def _between(then: Mapping[str, Any], now: Mapping[str, Any], where: str) -> Iterator[Difference]:
    for name, value in then.items():
        if name in now and not same(value, now[name]):
            yield Difference(_WORDS.get(name, name) + where, value, now[name], uses_file=True)


def _as_made(group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group with the learning rate that it was given: a scheduler changes it when it is made."""
    return {**group, "lr": group.get("initial_lr", group.get("lr"))}


def _numbers(state: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """The numbers, names and switches in a state, also inside others; not those that training moves."""
    found: dict[str, Any] = {}
    for name, value in state.items():
        if str(name) in _MOVING or (str(name).startswith("_") and name != "_schedulers"):
            continue
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            found[f"{at}{name}"] = value.item()
        elif _is_plain(value):
            found[f"{at}{name}"] = value
        elif isinstance(value, (list, tuple, dict)):
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            for key, part in parts:
                found.update(_numbers(part, f"{at}{name}[{key}].") if isinstance(part, dict) else {})
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, (bool, int, float, str)) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _without_own(owners: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    found = {name: value for owner in owners for name, value in owner.items()}
    return {name: value for name, value in found.items() if name not in Options.__dataclass_fields__}


def _text(value: Any) -> str:
    return "none" if value is _MISSING else f"{value!r:.60}"


def _short(value: Any) -> str:
    """A value; a number in the shorter of its two forms: ``3e-4`` for 0.0003, and 0.5 as it is."""
    if not isinstance(value, float):
        return _text(value)
    places = next(n for n in range(17) if float(f"{value:.{n}e}") == value) if math.isfinite(value) else 0
    digits, _, exponent = f"{value:.{places}e}".partition("e")
    return min(repr(value), f"{digits}e{int(exponent)}" if exponent else digits, key=len)
