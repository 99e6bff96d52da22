"""What a run has saved so far, as attributes of the objects that have a session: the callback, and modules of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from checkpointable.saving.kept_files import KeptFiles
    from checkpointable.saving.session import Session


class RunAttributes:
    """The best and the newest checkpoint, the lowest ``val_loss``, and the interval."""

    _checkpointing: Session

    @property
    def save_interval(self) -> int | str | None:
        """Batches between two saves, counted within the epoch, or ``"auto"``. May be changed while training."""
        return self._checkpointing.options.save_interval

    @save_interval.setter
    def save_interval(self, batches: int | str | None) -> None:
        self._checkpointing.change(save_interval=batches)

    @property
    def best_val_loss(self) -> float:
        """Lowest ``val_loss`` so far; ``inf`` before the first validation. Restored on resume."""
        return self._checkpointing.progress.best_val_loss

    @best_val_loss.setter
    def best_val_loss(self, loss: float) -> None:
        self._checkpointing.progress.best_val_loss = float(loss)

    @property
    def best_model_path(self) -> str:
        """The best checkpoint; ``""`` before there is one."""
        return self._checkpointing.saver.kept_on_disk.best_path

    @property
    def best_model_score(self) -> torch.Tensor | None:
        """Its value of ``monitor``, shape (); ``None`` before there is one."""
        return next(iter(self.best_k_models.values()), None)

    @property
    def best_k_models(self) -> dict[str, torch.Tensor]:
        """The best checkpoints and their values of ``monitor``, shape (), best first."""
        return score_tensors(self._checkpointing.saver.kept_on_disk)

    @property
    def last_model_path(self) -> str:
        """The newest checkpoint; ``""`` before there is one."""
        return self._checkpointing.saver.kept_on_disk.last_path


def score_tensors(kept: KeptFiles) -> dict[str, torch.Tensor]:
    """The best files and their scores, shape (), best first."""
    return {path: torch.tensor(score) for path, score in kept.scores.items()}
