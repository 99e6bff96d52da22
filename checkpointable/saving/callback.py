"""What only a callback hears, and what others look for in ``trainer.checkpoint_callback``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import proxy

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import trainer as internals

if TYPE_CHECKING:
    from checkpointable.saving.kept_files import Shelf
    from checkpointable.saving.session import Run


class _Shown:
    """An attribute of ``ModelCheckpoint`` that always says what is durable; what is assigned to it counts for nothing.

    Args:
        read: Its value, of the kept files.
    """

    def __init__(self, read: Callable[[Shelf], Any]) -> None:
        self._read = read

    def __get__(self, callback: CheckpointingCallback | None, owner: type) -> Any:
        return self if callback is None else self._read(callback.run.saver.visible)

    def __set__(self, callback: CheckpointingCallback, value: Any) -> None:
        """It is not for others to say."""


class CheckpointingCallback(ModelCheckpoint):
    """The run's ear in the trainer. A ``ModelCheckpoint`` by its attributes, since Lightning and loggers ask for one.

    None of ``ModelCheckpoint``'s own saving is left: the module's run saves, at the safe points. Where nothing is
    judged, the last checkpoint is what ``ckpt_path="best"`` means, as in Lightning.

    Args:
        run: The run of the module that this callback belongs to.
        replaced: The ``ModelCheckpoint`` that Lightning had added by itself; given back if another module is fitted.
    """

    best_k_models = _Shown(lambda shelf: _tensors(shelf.best.scores))
    best_model_path = _Shown(lambda shelf: shelf.best.name or shelf.last_path)
    best_model_score = _Shown(lambda shelf: next(iter(_tensors(shelf.best.scores).values()), None))
    current_score = _Shown(lambda shelf: _tensors(shelf.best.scores).get(shelf.last_path))
    kth_best_model_path = _Shown(lambda shelf: shelf.best.worst or "")
    last_model_path = _Shown(lambda shelf: shelf.last_path)

    def __init__(self, run: Run, replaced: ModelCheckpoint | None) -> None:
        self.run = run
        options = run.options
        super().__init__(
            monitor=options.monitor,
            mode=options.mode,
            save_top_k=options.save_top_k if options.ranks else 0,
            save_weights_only=options.save_weights_only,
            auto_insert_metric_name=options.auto_insert_metric_name,
            save_last=options.save_last,
        )
        self.replaced = replaced

    def publish(self, trainer: Trainer) -> None:
        """Tell the loggers of what is durable now."""
        if self.kth_best_model_path:
            self.kth_value = self.best_k_models[self.kth_best_model_path]
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Step aside for a fit of a module that is not ours."""
        if stage == "fit" and pl_module.__dict__.get("_checkpointing") is not self.run:
            trainer_callbacks.detach(trainer, self)
            if self.replaced is not None:
                trainer_callbacks.attach(trainer, self.replaced)
                self.replaced.setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Try the directory before anything is trained."""
        if not internals.fast_dev_run(trainer):
            self.run.open(trainer)
            self.dirpath = None if self.run.saver.store is None else self.run.saver.store.directory

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for Ctrl-C."""
        if self.run.options.save_on_exception and trainer.world_size == 1:
            self.run.ctrl_c.listen()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """From here on the state is that of no finished batch."""
        self.run.whole = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Nothing: the safe point comes later."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """The last moment before the parameters change."""
        self.run.saver.before_change()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the weights by what this validation has logged."""
        if internals.is_fitting(trainer) and not trainer.sanity_checking:
            self.run.note_val_loss(trainer)  # again: an override may log it after its super()
            self.run.note_best(self.run.judge.after_validation(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the weights by what this training epoch has logged."""
        self.run.note_best(self.run.judge.after_training_epoch(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ctrl-C is Python's again."""
        self.run.ctrl_c.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep the last consistent state."""
        self.run.ctrl_c.close()
        if internals.is_fitting(trainer) and not internals.fast_dev_run(trainer):
            self.run.on_exception(trainer, exception)

    def state_dict(self) -> dict[str, Any]:
        """Empty: the module's own key in the checkpoint has it all."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """For ``ckpt_path="last"``."""
        return {self.run.saver.shelf.last_path} - {""}


def _tensors(scores: Mapping[str, float]) -> dict[str, torch.Tensor]:
    return {path: torch.tensor(score) for path, score in scores.items()}
