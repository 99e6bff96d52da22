"""The key ``"checkpointable"`` of a checkpoint: where the run stood, and what describes the file.

Plain containers, numbers, strings and tensors only, so that ``torch.load(weights_only=True)`` always reads it.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import lightning
import torch

from checkpointable._errors import ResumeError
from checkpointable._version import __version__
from checkpointable.policy.lineage import Line
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position

KEY = "checkpointable"
FORMAT = 1
_KINDS = ("best", "epoch", "step", "time", "interval", "last", "exception", "manual")


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run stood when a checkpoint was taken.

    Attributes:
        run_id: The run, the same over all its restarts.
        position: Epoch, batch, step.
        safe_point: ``"batch"`` or ``"epoch"``: what had just ended; ``None``: taken elsewhere, by somebody else.
        best_val_loss: Lowest validation loss so far.
        seconds: Training time since the last save that ``train_time_interval`` asked for.
        gradients: Of an open accumulation window, by parameter name.
        stepped: Manual optimisation: whether an optimizer has ever stepped, and whether one did in the last batch.
        settings: How it was trained; see ``settings``.
        modes: What of the module is frozen, and what is in evaluation mode; see ``modes``.
        made: The same, as the script made the module.
        stopped_early: Whether an ``EarlyStopping`` had ended the training.
        reloaded_epochs: The epochs in which the loaders of training and validation were made.
        fetching: Whether the next batch was being fetched, or prepared, when an exception came.
        generation: How often the run has been resumed.
        line: The fit that it was taken in, and those that this goes on from; see ``lineage``.
        logged: Names of everything that was ever logged where it is judged.
        ranks: What each rank needs to go on as the same run; see ``rank_state``.
    """

    run_id: str
    position: Position
    safe_point: str | None
    best_val_loss: float
    seconds: float = 0.0
    gradients: Mapping[str, torch.Tensor] = field(default_factory=dict)
    stepped: tuple[bool, bool] = (False, False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    modes: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    stopped_early: bool = False
    reloaded_epochs: Mapping[str, float] = field(default_factory=dict)
    fetching: bool = False
    generation: int = 0
    line: Line = field(default_factory=Line.begin)
    logged: Sequence[str] = ()
    ranks: Sequence[Mapping[str, Any]] = ()

    def to_dict(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The value of the key, as it goes into a checkpoint."""
        return {
            "format": FORMAT,
            "metadata": dict(metadata),
            "run_id": self.run_id,
            "position": self.position.to_dict(),
            "safe_point": self.safe_point,
            "best_val_loss": self.best_val_loss,
            "seconds": self.seconds,
            "gradients": dict(self.gradients),
            "stepped": list(self.stepped),
            "settings": dict(self.settings),
            "modes": dict(self.modes),
            "made": dict(self.made),
            "stopped_early": self.stopped_early,
            "reloaded_epochs": dict(self.reloaded_epochs),
            "fetching": self.fetching,
            "generation": self.generation,
            "line": self.line.to_list(),
            "logged": list(self.logged),
            "ranks": list(self.ranks),
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> State:
        """The state that ``to_dict`` gave.

        Raises:
            ResumeError: If it was written by a later version of the library.
        """
        if saved["format"] > FORMAT:
            raise ResumeError(
                f"cannot read the state in this checkpoint: it has format {saved['format']}, and checkpointable"
                f" {__version__} knows up to {FORMAT}. Upgrade: pip install --upgrade checkpointable."
            )
        return cls(
            run_id=saved["run_id"],
            position=Position.from_dict(saved["position"]),
            safe_point=saved["safe_point"],
            best_val_loss=float(saved["best_val_loss"]),
            seconds=float(saved["seconds"]),
            gradients=saved["gradients"],
            stepped=(saved["stepped"][0], saved["stepped"][1]),
            settings=saved["settings"],
            modes=saved["modes"],
            made=saved["made"],
            stopped_early=saved["stopped_early"],
            reloaded_epochs=saved["reloaded_epochs"],
            fetching=saved["fetching"],
            generation=saved["generation"],
            line=Line.from_list(saved["line"]),
            logged=saved["logged"],
            ranks=saved["ranks"],
        )


def describe(
    state: State,
    *,
    reasons: Set[str],
    metrics: Mapping[str, float],
    score: Mapping[str, Any] | None,
    stem: str | None,
    resumed_from: str | None,
    weights_only: bool,
    exactness: str,
) -> dict[str, Any]:
    """The metadata of a checkpoint file: what its reader needs to know without opening a tensor.

    ``stem`` is the name it is to get, without version and suffix; ``None`` if somebody else chooses it.
    """
    return {
        "format": FORMAT,
        "kind": next(kind for kind in _KINDS if kind in reasons),
        "reasons": sorted(reasons),
        "run_id": state.run_id,
        "generation": state.generation,
        "line": state.line.to_list(),
        "stem": stem,
        **state.position.to_dict(),
        "safe_point": state.safe_point,
        "metrics": dict(metrics),
        "score": None if score is None else dict(score),
        "created": time.time(),
        "weights_only": weights_only,
        "resumed_from": resumed_from,
        "exactness": exactness,
        "versions": {
            "checkpointable": __version__,
            "lightning": lightning.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }


def make_arguments_plain(checkpoint: dict[str, Any]) -> None:
    """Our arguments among the saved hyper-parameters, in types that ``weights_only=True`` reads.

    A path becomes a string. A ``timedelta`` has no such type, and is left out: what it governs is how to train, and not
    how to build the module.
    """
    saved = checkpoint.get("hyper_parameters", {})
    for name in Options.__dataclass_fields__:
        if isinstance(saved.get(name), os.PathLike):
            saved[name] = os.fspath(saved[name])
        elif isinstance(saved.get(name), timedelta):
            del saved[name]
