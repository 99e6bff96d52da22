"""The constructor's arguments: one home for their names, defaults and limits."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from numbers import Integral, Real
from typing import Any

from checkpointable._errors import PolicyError
from checkpointable.policy import names
from checkpointable.policy.conditions import (
    AnyOf,
    Condition,
    EveryNBatches,
    EveryNEpochs,
    EveryNSeconds,
    EveryNTrainSteps,
)
from checkpointable.policy.from_script import Part, are_parts, parts_of
from checkpointable.policy.reasons import Reason
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
    save_weights_only: bool | str = False
    save_trainable_only: bool = False
    dirpath: str | os.PathLike[str] | None = None
    fast_dirpath: str | os.PathLike[str] | None = None
    upload_interval: timedelta | None = None
    filename: str = "epoch_{epoch}_batch_{batch}"
    best_filename: str = "best_{monitor}_epoch_{epoch}"
    auto_insert_metric_name: bool = False
    async_save: bool = True
    resume: str | None = None
    strict_resume: bool = False
    from_script: str | Sequence[str] = ()
    save_timeout: float = 120
    deadline_seconds: float | None = None
    log_save_cost: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        found = list(self._problems())
        if found:
            raise PolicyError("\n  ".join(["these arguments cannot be used:", *found]))

    @property
    def places(self) -> list[str]:
        """The directories that the user has given, the fast one first."""
        return [os.fspath(place) for place in (self.fast_dirpath, self.dirpath) if place is not None]

    @property
    def script_parts(self) -> frozenset[Part]:
        """What a resume takes from the script."""
        return parts_of(self.from_script)

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

    def holds_weights_only(self, reasons: Set[Reason]) -> bool:
        """Whether a file that is saved for these reasons holds weights only."""
        return reasons == {Reason.BEST} if self.save_weights_only == "best" else bool(self.save_weights_only)

    def is_of_interval(self, *, weights_only: bool) -> bool:
        """Whether a file of this kind is like those that are saved by interval."""
        return weights_only == (self.save_weights_only is True)

    def most_files(self, *, weights_only: bool) -> dict[str, int]:
        """How many files of this kind are kept, by the argument that says so; -1 for all."""
        counts = {"save_top_k": self.save_top_k if self.keeps_best else 0, "save_last_k": self.save_last_k}
        if self.save_weights_only == "best":
            del counts["save_last_k" if weights_only else "save_top_k"]
        return counts

    def files_for(self, reasons: frozenset[Reason]) -> list[frozenset[Reason]]:
        """The reasons of each file that is saved: of a best one, and of one to resume from if the best one is none.

        The best one is saved first: a run that is killed in between resumes before both, and makes both again.
        """
        best = frozenset({Reason.BEST})
        if self.save_weights_only == "best" and reasons >= best:
            return [best, (reasons - best) or frozenset({Reason.NEWEST})]
        return [reasons]

    @property
    def saves_anything(self) -> bool:
        """Whether any condition is on."""
        asked = (self.conditions, self.measures_interval, self.keeps_best, self.save_on_exception, self.save_last)
        return any(asked)

    def _problems(self) -> Iterator[str]:
        for argument, (is_allowed, allowed) in _LIMITS.items():
            value = getattr(self, argument)
            may_be_none = "None" in str(self.__dataclass_fields__[argument].type)
            if not (may_be_none if value is None else is_allowed(value)):
                yield f"{argument}={value!r}: {allowed}"
        for argument in ("filename", "best_filename"):
            yield from names.problems(getattr(self, argument), argument)
        if self.auto_insert_metric_name is True and self.filename == type(self).filename:
            yield (
                "auto_insert_metric_name=True: the default filename has the names already, as in epoch_3_batch_20;"
                ' pass filename="{epoch}-{batch}" with it, or leave it out'
            )
        if self.dirpath is None and _LIMITS["fast_dirpath"][0](self.fast_dirpath):
            yield f"fast_dirpath={self.fast_dirpath!r}: needs a dirpath, to which checkpoints are copied from there"
        if self.fast_dirpath is None and _LIMITS["upload_interval"][0](self.upload_interval):
            yield f"upload_interval={self.upload_interval!r}: needs a fast_dirpath, from which checkpoints are copied"
        if self.resume in ("auto", "must") and self.dirpath is None:
            yield f"resume={self.resume!r}: needs a dirpath to look in; that of a logger is new in each run"
        if self.save_weights_only == "best" and not self.keeps_best:
            yield "save_weights_only='best': no checkpoint is best, as monitor is None or save_top_k is 0"
        if self.patience is not None and self.monitor is None:
            yield f"patience={self.patience!r}: needs a monitor to watch, and monitor is None"


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


_Limit = tuple[Callable[[Any], bool], str]
_FLAG: _Limit = (lambda value: isinstance(value, bool), "must be True or False")
_EVERY: _Limit = (lambda value: _is_whole(value, 0), "must be a whole number of at least 1; 0 or None for never")
_KEPT: _Limit = (lambda value: _is_whole(value, -1), "must be a whole number of -1 or more: 0 keeps none, -1 keeps all")
_LIMITS: dict[str, _Limit] = {
    **dict.fromkeys(("save_on_exception", "save_last", "save_trainable_only"), _FLAG),
    **dict.fromkeys(("auto_insert_metric_name", "async_save", "strict_resume", "log_save_cost"), _FLAG),
    **dict.fromkeys(("every_n_train_steps", "every_n_epochs", "keep_every_n_epochs"), _EVERY),
    **dict.fromkeys(("save_top_k", "save_last_k"), _KEPT),
    "save_weights_only": (
        lambda value: isinstance(value, bool) or value == "best",
        "must be True or False, or 'best' for the best checkpoints alone",
    ),
    "save_interval": (
        lambda value: value == "auto" or _is_whole(value, 1),
        "must be a whole number of batches, at least 1, or 'auto', or None for never",
    ),
    "train_time_interval": (
        lambda value: isinstance(value, timedelta) and value >= timedelta(0),
        "must be a datetime.timedelta that is not negative, or None for never",
    ),
    "overhead_budget": (
        lambda value: _is_real(value) and 0 < float(value) < 1,
        "must be a share of the training time, above 0 and below 1",
    ),
    "monitor": (
        lambda value: isinstance(value, str) and value.strip() != "",
        "must be the name of a logged quantity, or None to judge nothing",
    ),
    "mode": (lambda value: value in ("min", "max"), "must be 'min' or 'max'"),
    "min_delta": (
        lambda value: _is_real(value) and 0 <= float(value) < math.inf,
        "must be a number that is not negative",
    ),
    "save_on_train_epoch_end": (
        lambda value: isinstance(value, bool),
        "must be True (end of the training epoch), False (after validation) or None (wherever it is logged)",
    ),
    "dirpath": (
        lambda value: isinstance(value, (str, os.PathLike)) and str(value) != "",
        "must be a directory or a URL, or None for 'checkpoints' under the trainer's log directory",
    ),
    "fast_dirpath": (
        lambda value: isinstance(value, (str, os.PathLike)) and str(value) != "" and "://" not in str(value),
        "must be a local directory, or None to save in dirpath at once",
    ),
    "upload_interval": (
        lambda value: isinstance(value, timedelta) and value > timedelta(0),
        "must be a datetime.timedelta above 0, or None to copy the next checkpoint as soon as the one before is there",
    ),
    "from_script": (
        are_parts,
        f"must be one of {', '.join(map(repr, map(str, Part)))}, or a list of them; () for none",
    ),
    "resume": (
        lambda value: value in ("auto", "must"),
        "must be 'auto' (resume if there is a checkpoint), 'must' (never start anew), or None (as ckpt_path says)",
    ),
    "save_timeout": (
        lambda value: _is_real(value) and 0 < float(value) < math.inf,
        "must be a number of seconds above 0",
    ),
    "deadline_seconds": (
        lambda value: _is_real(value) and 0 < float(value) < math.inf,
        "must be a number of seconds above 0, or None if the process may live as long as a save takes",
    ),
    "patience": (
        lambda value: _is_whole(value, 1),
        "must be a whole number of validations, at least 1, or None for no early stopping",
    ),
}
