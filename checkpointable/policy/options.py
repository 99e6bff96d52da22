"""The constructor's arguments: one home for their names, defaults and limits."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from numbers import Integral, Real
from typing import Any

from checkpointable._errors import PolicyError, UnknownArgumentError
from checkpointable.policy import names
from checkpointable.policy.conditions import (
    AnyOf,
    Condition,
    EveryNBatches,
    EveryNEpochs,
    EveryNSeconds,
    EveryNTrainSteps,
)
from checkpointable.policy.retention import KeepBest, KeepNewest, Retention


@dataclass(frozen=True, kw_only=True)
class Options:
    """When, which, what and where to save. See :class:`checkpointable.CheckpointingMixin` for each argument.

    Raises:
        PolicyError: If an argument cannot be used; the message lists all that cannot.
    """

    save_interval: int | str | None = "auto"
    every_n_train_steps: int | None = None
    train_time_interval: timedelta | None = None
    every_n_epochs: int | None = None
    keep_every_n_epochs: int | None = None
    overhead_budget: float = 0.01
    save_on_exception: bool = True
    save_last: bool = True
    monitor: str | None = "val_loss"
    mode: str = "min"
    min_delta: float = 0.0
    save_top_k: int = 1
    save_last_k: int = 1
    save_on_train_epoch_end: bool | None = None
    save_weights_only: bool = False
    dirpath: str | os.PathLike[str] | None = None
    filename: str = "epoch_{epoch}_batch_{batch}"
    best_filename: str = "best_{monitor}_epoch_{epoch}"
    auto_insert_metric_name: bool = False
    async_save: bool = True
    strict_resume: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        found = list(self._problems())
        if found:
            raise PolicyError("\n  ".join(["these arguments cannot be used:", *found]))

    @property
    def keeps_best(self) -> bool:
        """Whether checkpoints are kept for being the best."""
        return self.save_top_k != 0 and self.monitor is not None

    @property
    def measures_interval(self) -> bool:
        """Whether the interval between two saves is found by measurement."""
        return self.save_interval == "auto" and self.save_last_k != 0

    @property
    def interval(self) -> EveryNBatches | None:
        """The interval in batches, if it is a number."""
        if self.save_interval is None or self.save_interval == "auto" or self.save_last_k == 0:
            return None
        return EveryNBatches(int(self.save_interval))

    @property
    def conditions(self) -> AnyOf:
        """The conditions under which a save is due, but for a measured interval, the best, the end and exceptions."""
        steps, time, epochs = self.every_n_train_steps, self.train_time_interval, self.every_n_epochs
        asked: list[Condition | None] = []
        if self.save_last_k != 0:
            asked += [
                self.interval,
                EveryNTrainSteps(steps) if steps else None,
                EveryNSeconds(time.total_seconds()) if time is not None else None,
                EveryNEpochs(epochs) if epochs else None,
            ]
        if self.keep_every_n_epochs:
            asked.append(EveryNEpochs(self.keep_every_n_epochs, forever=True))
        return AnyOf(tuple(condition for condition in asked if condition is not None))

    @property
    def retention(self) -> Retention:
        """The rules by which files stay."""
        return Retention(
            best=KeepBest(self.save_top_k if self.keeps_best else 0, self.mode, self.min_delta),
            newest=KeepNewest(self.save_last_k),
        )

    @property
    def saves_anything(self) -> bool:
        """Whether any condition is on."""
        return bool(self.conditions) or any(
            (self.measures_interval, self.keeps_best, self.save_on_exception, self.save_last)
        )

    def _problems(self) -> Iterator[str]:
        for field in fields(self):
            allowed = _LIMITS.get(field.name)
            value = getattr(self, field.name)
            if allowed is not None and not allowed[0](value):
                yield f"{field.name}={value!r}: {allowed[1]}"
        for argument in ("filename", "best_filename"):
            yield from names.problems(getattr(self, argument), argument)
        if self.patience is not None and self.monitor is None:
            yield f"patience={self.patience!r}: needs a monitor to watch, and monitor is None"


@contextlib.contextmanager
def naming_unknown_arguments(cls: type, given: Iterable[str]) -> Iterator[None]:
    """While the next class in line gets these arguments: say it in the user's words if it knows one of them not.

    Raises:
        UnknownArgumentError: In the place of a ``TypeError`` that names a base class which the user never wrote.
    """
    try:
        yield
    except TypeError as error:
        found = re.match(r"(.+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
        if found is None or found[2] not in given or found[1] not in {base.__qualname__ for base in cls.__mro__}:
            raise
        taken = {name: None for base in cls.__mro__ for name in _named(base.__dict__.get("__init__"))}
        close = difflib.get_close_matches(found[2], taken, n=1)
        raise UnknownArgumentError(
            f"{cls.__name__} takes no argument {found[2]!r}. "
            + (f"Did you mean {close[0]!r}?" if close else f"It takes {', '.join(taken)}.")
        ) from error


def _named(function: Any) -> list[str]:
    """The arguments that can be given by name."""
    parameters = [] if function is None else list(inspect.signature(function).parameters.values())
    return [
        it.name for it in parameters if it.kind in (it.KEYWORD_ONLY, it.POSITIONAL_OR_KEYWORD) and it.name != "self"
    ]


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _count_or_none(value: Any) -> bool:
    return value is None or _whole(value, 0)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_directory_name(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, (str, os.PathLike)) and str(value) != ""


_KEPT = (lambda value: _whole(value, -1), "must be a whole number: 0 keeps none, -1 keeps all")
_EVERY = (_count_or_none, "must be a whole number of at least 1; 0 or None for never")
_TRUE_OR_FALSE = (_flag, "must be True or False")
_LIMITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "save_interval": (
        lambda value: value is None or value == "auto" or _whole(value, 1),
        "must be a whole number of batches, at least 1, or 'auto', or None for never",
    ),
    "every_n_train_steps": _EVERY,
    "every_n_epochs": _EVERY,
    "keep_every_n_epochs": _EVERY,
    "train_time_interval": (
        lambda value: value is None or (isinstance(value, timedelta) and value >= timedelta(0)),
        "must be a datetime.timedelta that is not negative, or None for never",
    ),
    "overhead_budget": (
        lambda value: isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < 1,
        "must be a share of the training time, above 0 and below 1",
    ),
    "save_on_exception": _TRUE_OR_FALSE,
    "save_last": _TRUE_OR_FALSE,
    "monitor": (
        lambda value: value is None or (isinstance(value, str) and value.strip() != ""),
        "must be the name of a logged quantity, or None to judge nothing",
    ),
    "mode": (lambda value: value in ("min", "max"), "must be 'min' or 'max'"),
    "min_delta": (
        lambda value: isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < math.inf,
        "must be a number that is not negative",
    ),
    "save_top_k": _KEPT,
    "save_last_k": _KEPT,
    "save_on_train_epoch_end": (
        lambda value: value is None or _flag(value),
        "must be True (end of the training epoch), False (after validation) or None (wherever it is logged)",
    ),
    "save_weights_only": _TRUE_OR_FALSE,
    "dirpath": (
        _is_directory_name,
        "must be a directory or a URL, or None for 'checkpoints' under the trainer's log directory",
    ),
    "auto_insert_metric_name": _TRUE_OR_FALSE,
    "async_save": _TRUE_OR_FALSE,
    "strict_resume": _TRUE_OR_FALSE,
    "patience": (
        lambda value: value is None or _whole(value, 1),
        "must be a whole number of validations, at least 1, or None for no early stopping",
    ),
}
