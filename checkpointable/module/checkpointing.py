"""``Checkpointing``: the callback, for modules that one does not write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Callback
from lightning_utilities.core.rank_zero import rank_zero_info

from checkpointable._errors import PolicyError
from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import connector
from checkpointable.policy.options import Options
from checkpointable.policy.unknown_arguments import refuse_unknown_arguments
from checkpointable.saving import attach, run_state
from checkpointable.saving.logs import Logs
from checkpointable.saving.run_attributes import RunAttributes
from checkpointable.saving.session import Session

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class Checkpointing(RunAttributes, trainer_callbacks.EarlyCallback, Callback):
    """Checkpointing for any module: ``Trainer(callbacks=[Checkpointing(dirpath="runs/a", save_interval=200)])``.

    It works in a trainer of ``lightning`` and in one of ``pytorch_lightning``. For a module that is a
    ``CheckpointingMixin`` it does nothing, and says so: the module saves itself.

    Args:
        save_interval: This and the other arguments are those of ``CheckpointingMixin``.

    Raises:
        PolicyError: If arguments cannot be used; the message lists all of them.
    """

    def __init__(
        self,
        *args: Any,
        save_interval: int | Literal["auto"] | None = "auto",
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        every_n_epochs: int | None = None,
        keep_every_n_epochs: int | None = None,
        overhead_budget: float = 0.01,
        save_on_exception: bool = True,
        save_last: bool = True,
        monitor: str | None = "val_loss",
        mode: Literal["min", "max"] = "min",
        min_delta: float = 0.0,
        save_top_k: int = 1,
        save_last_k: int = 1,
        save_on_train_epoch_end: bool | None = None,
        save_weights_only: bool | Literal["best"] = False,
        save_trainable_only: bool = False,
        dirpath: str | os.PathLike[str] | None = None,
        fast_dirpath: str | os.PathLike[str] | None = None,
        upload_interval: timedelta | None = None,
        filename: str = "epoch_{epoch}_batch_{batch}",
        best_filename: str = "best_{monitor}_epoch_{epoch}",
        auto_insert_metric_name: bool = False,
        async_save: bool = True,
        resume: Literal["auto", "must"] | None = None,
        strict_resume: bool = False,
        from_script: str | Sequence[str] = (),
        save_timeout: float = 120,
        deadline_seconds: float | None = None,
        log_save_cost: bool = False,
        patience: int | None = None,
        **kwargs: Any,
    ) -> None:
        given = locals()
        refuse_unknown_arguments(type(self), args, kwargs)
        self._checkpointing = Session(Options(**{name: given[name] for name in Options.__dataclass_fields__}))

    def on_module_known(self, module: LightningModule) -> None:
        """Before the loggers are opened: let them find the log of the run that will be resumed."""
        if "_checkpointing" not in vars(module):
            Logs().prepare(module.trainer, self._checkpointing.options)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach saving to the trainer.

        Raises:
            PolicyError: If the trainer has a second callback of this class.
        """
        if sum(isinstance(it, Checkpointing) for it in trainer_callbacks.callbacks(trainer)) > 1:
            raise PolicyError("the trainer has more than one Checkpointing callback. Give it one.")
        if "_checkpointing" in vars(pl_module):
            connector.keep(trainer, None)
            rank_zero_info(
                f"checkpointable: {type(pl_module).__name__} saves itself, by the arguments of its own constructor, so"
                " the callback Checkpointing(...) does nothing."
            )
            return
        connector.keep(trainer, self)
        with trainer_callbacks.in_place(trainer):
            attach.attach(trainer, self._checkpointing, by_callback=True)

    def add_state(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """Called when the trainer makes a checkpoint: adds the key ``"checkpointable"``."""
        run_state.add(self._checkpointing, trainer, checkpoint)

    def take_state(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """Called when the trainer loads a checkpoint: restores from that key."""
        run_state.take(self._checkpointing, trainer, checkpoint, trainer.lightning_module)
