"""The key ``"checkpointable"`` of a checkpoint: where the run stood, and what each rank needs to resume the same run.

Plain containers, numbers, strings and tensors only, so that ``torch.load(weights_only=True)`` always reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from checkpointable._errors import ResumeError
from checkpointable._version import __version__
from checkpointable.policy.as_builtin import as_builtin, from_builtin
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.position import Ended, Position

KEY = "checkpointable"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class RankState:
    """What one process needs to resume the same run. The checkpoint of a distributed training has one for every rank.

    Attributes:
        random: The states of the global random generators; see ``rng``.
        seed: What ``seed_everything`` was given.
        training: Where each training loader stood; see ``LoaderPosition``.
        validation: The same for the loaders of the validation.
        logged: Lightning's running means of logged values, and the values that it shows.
        metrics: The states of the ``torchmetrics`` metrics in the module, by name.
    """

    random: Mapping[str, Any]
    seed: str | None
    training: Sequence[Mapping[str, Any]]
    validation: Sequence[Mapping[str, Any]]
    logged: Mapping[str, Any]
    metrics: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stood when a checkpoint was taken.

    Attributes:
        run_id: The run, the same over all its resumes.
        lineage: The attempt that took it, and those that this descends from.
        position: Epoch, batch, step.
        ended: What had just ended; ``None`` if it was not taken at a safe point, but by the user or another callback.
        best_val_loss: Lowest ``val_loss`` so far.
        seconds: Training time since the last save that ``train_time_interval`` asked for.
        gradients: Of an open accumulation window, by parameter name.
        stepped: Manual optimisation: whether an optimizer has ever stepped, and whether one did in the last batch.
        settings: How it was trained; see ``settings``.
        module_modes: Which parameters are frozen and which modules are in evaluation mode; see ``module_modes``.
        initial_modes: The same, as the script made the module.
        stopped_early: Whether an ``EarlyStopping`` had ended the training.
        reloaded_epochs: The epochs in which the loaders of training and validation were made.
        fetching: Whether the next batch was being fetched when an exception came.
        logged_names: Names of everything that was ever logged where ``monitor`` is judged.
        ranks: What each rank needs. Empty in a file that holds weights only.
        format: Of this state.
    """

    run_id: str
    lineage: Lineage
    position: Position
    ended: Ended | None
    best_val_loss: float
    seconds: float = 0.0
    gradients: Mapping[str, torch.Tensor] = field(default_factory=dict)
    stepped: Sequence[bool] = (False, False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    module_modes: Mapping[str, Any] = field(default_factory=dict)
    initial_modes: Mapping[str, Any] = field(default_factory=dict)
    stopped_early: bool = False
    reloaded_epochs: Mapping[str, float] = field(default_factory=dict)
    fetching: bool = False
    logged_names: Sequence[str] = ()
    ranks: tuple[RankState, ...] = ()
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """As it goes into a checkpoint."""
        return as_builtin(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> RunState:
        """What ``to_dict`` gave.

        Raises:
            ResumeError: If it was written by a later version of the library.
        """
        if saved["format"] > FORMAT:
            raise ResumeError(
                f"cannot read the state in this checkpoint: it has format {saved['format']}, and checkpointable"
                f" {__version__} knows up to {FORMAT}. Upgrade: pip install --upgrade checkpointable."
            )
        return from_builtin(cls, saved)
