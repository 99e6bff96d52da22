"""Reads the score of the present weights: the monitored quantity, only if its value was computed on these weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from checkpointable._errors import CheckpointableWarning, MonitorError, PolicyError
from checkpointable.lightning_internals import logged as logged_values
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy import metric_names, names
from checkpointable.policy.options import Options

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_DEFAULT_MONITOR = Options.monitor


@dataclass(eq=False)
class Monitor:
    """Reads the monitored quantity where it is logged. Rank 0's value counts for all ranks.

    Its errors are raised at the next safe point, not at once: there the state is consistent, and can be saved.

    Attributes:
        problem: What is raised there: the monitored quantity was not logged, or is not a scalar.
    """

    logged_names: set[str] = field(default_factory=set)
    problem: MonitorError | None = None
    _validated_at: int | None = None
    _validated: Mapping[str, torch.Tensor] = field(default_factory=dict)
    _templates_checked: bool = False
    _mode_checked: bool = False

    def after_validation(self, trainer: Trainer, options: Options) -> float | None:
        """The score of the present weights at the end of a validation, or ``None``."""
        self._validated = logged = internals.logged_now(trainer)
        self._validated_at = trainer.fit_loop.total_batch_idx
        self.logged_names.update(logged)
        when = options.save_on_train_epoch_end
        if when is True:
            return None
        if when is False:
            logged = {**internals.logged_in_training(trainer), **logged}
        return self._score(trainer, options, logged, expected=when is False)

    def after_training_epoch(self, trainer: Trainer, options: Options) -> float | None:
        """The score of the present weights at the end of a training epoch, or ``None``."""
        logged = internals.logged_now(trainer)
        self.logged_names.update(logged)
        when = options.save_on_train_epoch_end
        if when is False:
            return None
        if when is True and self._validated_at == trainer.fit_loop.total_batch_idx:
            logged = {**self._validated, **logged}
        all_logged = self._validated_at is not None or not trainer.enable_validation
        return self._score(trainer, options, logged, expected=all_logged)

    def raise_problem(self) -> None:
        """Raise the ``problem``, once."""
        if self.problem is not None:
            problem, self.problem = self.problem, None
            raise problem

    def check_templates(self, trainer: Trainer, options: Options) -> None:
        """Raise a ``PolicyError`` if a file name has an unknown field, once all that an epoch logs is known."""
        if self._templates_checked or (self._validated_at is None and trainer.enable_validation):
            return
        self._templates_checked = True
        logged = self.logged_names | set(trainer.callback_metrics)
        fields = (*names.POSITION_FIELDS, *sorted(logged))
        used = {"filename": fields}
        if options.monitor in logged:
            used["best_filename"] = (*fields, "monitor")
        found = [
            f"{argument}={template!r}: nothing called {', '.join(map(repr, unknown))}; there are {', '.join(allowed)}"
            for argument, allowed in used.items()
            if (unknown := names.unknown_fields(template := getattr(options, argument), allowed))
        ]
        if found:
            raise PolicyError("\n  ".join(["these templates name fields that do not exist:", *found]))

    def _score(
        self, trainer: Trainer, options: Options, logged: Mapping[str, torch.Tensor], *, expected: bool
    ) -> float | None:
        monitor = str(options.monitor)
        value = logged.get(monitor)
        if value is not None and value.numel() == 1 and (options.keeps_best or options.patience):
            self._check_mode(trainer, options, monitor)
        if not options.keeps_best:
            return None
        if value is None and expected and monitor not in self.logged_names:
            self._note_missing(options, monitor)
        if value is not None and value.numel() != 1:
            self.problem = self.problem or MonitorError(
                f"monitor={monitor!r} is not a scalar: it was logged with shape {tuple(value.shape)}."
                " Log its mean, or monitor another quantity."
            )
            value = None
        score: float | None = trainer.strategy.broadcast(None if value is None else float(value))
        return score

    def _check_mode(self, trainer: Trainer, options: Options, monitor: str) -> None:
        """Warn once if the metric that is judged, or its name, says that the other mode is meant."""
        if self._mode_checked:
            return
        self._mode_checked = True
        higher = logged_values.higher_is_better(trainer, monitor)
        evidence = f"the metric logged as {monitor!r} has higher_is_better={higher}"
        if higher is None and metric_names.higher_is_better(monitor):  # a name says less than the metric
            higher, evidence = True, "by its name, higher is better"
        mode = options.mode if higher is None else "max" if higher else "min"
        if mode != options.mode:
            rank_zero_warn(
                f"monitor={monitor!r} is judged with mode={options.mode!r}, so the {options.mode}imum is best; but"
                f" {evidence}. Pass mode={mode!r}. If mode={options.mode!r} is meant, ignore this warning.",
                category=CheckpointableWarning,
            )

    def _note_missing(self, options: Options, monitor: str) -> None:
        logged = ", ".join(sorted(self.logged_names)) or "nothing"
        if monitor == _DEFAULT_MONITOR and options.patience is None:
            self.logged_names.add(monitor)  # so that this is logged once
            rank_zero_info(
                f"checkpointable: monitor={monitor!r} (the default) is not logged, so no best checkpoint is kept."
                f" Logged: {logged}."
            )
            return
        self.problem = MonitorError(
            f"monitor={monitor!r} was never logged. Logged: {logged}."
            f" Log it with self.log({monitor!r}, ...), or monitor one of these."
        )


def scalars(metrics: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Logged values as numbers, without those that are not scalar."""
    return {name: float(value) for name, value in metrics.items() if value.numel() == 1}
