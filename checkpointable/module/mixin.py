"""``CheckpointingMixin``: a LightningModule that saves itself and resumes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from checkpointable._errors import CheckpointableWarning, NotInitializedError, ResumeError
from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import finders
from checkpointable.lightning_internals import trainer as internals
from checkpointable.module.super_calls import Parts, guard, part
from checkpointable.policy.names import KEY
from checkpointable.policy.options import Options, naming_unknown_arguments
from checkpointable.saving import callback
from checkpointable.saving.loadable import make_loadable
from checkpointable.saving.session import Session

if TYPE_CHECKING:
    _Base = LightningModule
else:
    _Base = object


class CheckpointingMixin(_Base):
    """Checkpointing for a module that has its own steps: ``class Net(CheckpointingMixin, LightningModule)``.

    Conditions combine by *or*; one file serves all that are due at the same time. A save waits for the next safe
    point: after every callback and hook of its batch, outside an accumulation window, not between a batch and its
    validation, not between an epoch's last batch and the epoch's end.

    Yours to override: every hook, with or without ``super()``.
    To leave alone: names that start with ``_checkpointing``.

    Args:
        save_interval: Batches between two saves, counted within the epoch; ``"auto"`` = as often as
            ``overhead_budget`` allows; ``None`` = never.
        every_n_train_steps: Optimizer steps between two saves (manual optimisation: batches with at least one).
        train_time_interval: Time between two saves.
        every_n_epochs: Epochs between two saves at the end of an epoch.
        keep_every_n_epochs: Save at the end of every so many epochs, and never delete these files.
        overhead_budget: For ``"auto"``: the share of training time that saving may cost.
        save_on_exception: On an exception, Ctrl-C or a termination signal, keep the last consistent state.
        save_last: Save when training ends, and keep ``last.ckpt`` / ``best.ckpt`` pointing at the newest / best file.
        monitor: The logged quantity that decides what is best; ``None`` = no checkpoint is best.
        mode: ``"min"`` if lower is better, ``"max"`` if higher is.
        min_delta: By how much a value must be better to count. NaN is never better, nor is an equal value.
        save_top_k: Best checkpoints kept; 0 none, -1 all.
        save_last_k: Newest interval, time, step and epoch checkpoints kept; 0 none, -1 all.
        save_on_train_epoch_end: Read ``monitor`` at the end of the training epoch (``True``), after validation
            (``False``), or wherever it is logged (``None``).
        save_weights_only: Leave out optimizers, schedulers and loops. Such a file cannot be resumed from.
        dirpath: Directory; ``None`` = ``checkpoints`` under the trainer's log directory, or the directory of the
            checkpoint resumed from.
        filename: Template: ``{epoch}`` (from 0), ``{batch}`` (batches done in this epoch), ``{step}`` (optimizer steps
            done), any logged metric, with format specs.
        best_filename: The same for best checkpoints; ``{monitor}`` is the name of the monitored quantity.
        auto_insert_metric_name: ``{epoch:02d}`` becomes ``epoch=02``.
        async_save: Write in the background; ``False``: training waits until each file is durable.
        strict_resume: Refuse to resume when anything could not be restored exactly.
        patience: Stop after this many validations without improvement (Lightning's ``EarlyStopping`` on ``monitor``).
        args: Passed on to the next base class.
        kwargs: Passed on to the next base class.

    Raises:
        PolicyError: If arguments cannot be used; the message lists all of them.
    """

    _checkpointing_parts: ClassVar[Parts]
    _checkpointing_expects_super: ClassVar[bool] = False  # code written for a LightningModule may leave it out

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
        save_weights_only: bool = False,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str = "epoch_{epoch}_batch_{batch}",
        best_filename: str = "best_{monitor}_epoch_{epoch}",
        auto_insert_metric_name: bool = False,
        async_save: bool = True,
        strict_resume: bool = False,
        patience: int | None = None,
        **kwargs: Any,
    ) -> None:
        given = locals()
        options = Options(**{name: given[name] for name in Options.__dataclass_fields__})
        with naming_unknown_arguments(type(self), kwargs):
            super().__init__(*args, **kwargs)
        self._checkpointing = Session(options)

    def __getattr__(self, name: str) -> Any:
        """As ``torch.nn.Module``.

        Raises:
            NotInitializedError: If a private attribute is read before ``super().__init__()`` was called. It is an
                ``AttributeError`` too, so that ``hasattr`` and ``getattr`` with a default answer as in any module.
        """
        if "_parameters" not in self.__dict__ and name.startswith("_") and not name.startswith("__"):
            raise NotInitializedYetError(str(_not_initialized(type(self))))
        return super().__getattr__(name)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        guard(cls)

    @property
    def save_interval(self) -> int | str | None:
        """Batches between two saves, counted within the epoch, or ``"auto"``. May be changed while training."""
        return _session(self).options.save_interval

    @save_interval.setter
    def save_interval(self, batches: int | str | None) -> None:
        _session(self).change(save_interval=batches)

    @property
    def best_val_loss(self) -> float:
        """Lowest ``val_loss`` so far; ``inf`` before the first validation. Restored on resume."""
        return _session(self).progress.best_val_loss

    @best_val_loss.setter
    def best_val_loss(self, loss: float) -> None:
        _session(self).progress.best_val_loss = float(loss)

    @property
    def best_model_path(self) -> str:
        """The best checkpoint; ``""`` before there is one."""
        return _session(self).saver.kept_on_disk.best_path

    @property
    def best_model_score(self) -> torch.Tensor | None:
        """Its value of ``monitor``, shape (); ``None`` before there is one."""
        return next(iter(self.best_k_models.values()), None)

    @property
    def best_k_models(self) -> dict[str, torch.Tensor]:
        """The best checkpoints and their values of ``monitor``, shape (), best first."""
        return callback.score_tensors(_session(self).saver.kept_on_disk)

    @property
    def last_model_path(self) -> str:
        """The newest checkpoint; ``""`` before there is one."""
        return _session(self).saver.kept_on_disk.last_path

    @part
    def configure_callbacks(self) -> Sequence[Callback] | Callback:
        """Before every fit, validation and test: attaches saving to the trainer. Returns the next class's callbacks."""
        _attach_saving(self)
        return super().configure_callbacks()

    @part
    def on_validation_epoch_end(self) -> None:
        """After the batches of a validation: moves ``best_val_loss``."""
        super().on_validation_epoch_end()
        _note_val_loss(self)

    @part
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """When a checkpoint is made, by Lightning, a callback or your code: adds the key ``"checkpointable"``."""
        super().on_save_checkpoint(checkpoint)
        _add_state(self, checkpoint)

    @part
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """When a checkpoint is loaded: restores from that key. Without it, a warning says what the checkpoint lacks."""
        super().on_load_checkpoint(checkpoint)
        _take_state(self, checkpoint)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As ``torch.nn.Module.load_state_dict``; weights of another architecture get an error that says what to do.

        Raises:
            ResumeError: If keys or shapes differ.
        """
        try:
            return super().load_state_dict(*args, **kwargs)
        except RuntimeError as error:
            if not str(error).startswith("Error(s) in loading state_dict"):  # such as no memory
                raise
            raise ResumeError(
                f"cannot load these weights into {type(self).__name__}: they are of another architecture.\n{error}\n"
                "Build the module with the arguments it was saved with, or load what fits with strict=False"
                " (strict_loading=False on the module, for Trainer.fit)."
            ) from error


class NotInitializedYetError(NotInitializedError, AttributeError):
    """An attribute is missing because ``super().__init__()`` was not called, or not yet."""


def _session(module: Any) -> Session:
    session: Session | None = module.__dict__.get("_checkpointing")
    if session is None:
        raise _not_initialized(type(module))
    return session


def _not_initialized(cls: type) -> NotInitializedError:
    order = cls.__mro__
    cure = "Call super().__init__() in the first line of every __init__."
    if order.index(LightningModule) < order.index(CheckpointingMixin):
        cure = f"Put the mixin first: class {cls.__name__}(CheckpointingMixin, LightningModule)."
    return NotInitializedError(
        f"{cls.__name__} was not initialised: its __init__ does not reach CheckpointingMixin.__init__. {cure}"
    )


def _attach_saving(module: Any) -> None:
    session, trainer = _session(module), internals.attached_trainer(module)
    if trainer is not None:
        callback.attach(trainer, session)


def _note_val_loss(module: Any) -> None:
    trainer = internals.fitting_trainer(module)
    if trainer is not None and not trainer.sanity_checking and _session(module).trial is None:
        _session(module).progress.note_val_loss(trainer)


def _add_state(module: Any, checkpoint: dict[str, Any]) -> None:
    trainer = internals.attached_trainer(module)
    make_loadable(checkpoint)
    if trainer is not None and _session(module).trial is None:
        _session(module).progress.name_what_is_used(checkpoint)
        checkpoint[KEY] = _session(module).capture(trainer, checkpoint)


def _take_state(module: Any, checkpoint: dict[str, Any]) -> None:
    trainer, session = internals.attached_trainer(module), _session(module)
    if session.trial is not None or (trainer is not None and not internals.is_fitting(trainer)):
        return  # a finder's trial, validate, test and predict leave the session unchanged
    if trainer is not None and "optimizer_states" not in checkpoint:
        raise ResumeError(
            f"cannot resume from {trainer.ckpt_path}: it holds weights only (save_weights_only=True). Start a new run"
            f" with {type(module).__name__}.load_from_checkpoint(...), or resume from another file."
        )
    if KEY in checkpoint:
        if trainer is None:
            session.restore(checkpoint)
        else:
            session.restore(checkpoint, rank=trainer.global_rank, ended=internals.ended(checkpoint))
            finders.restore_found(trainer, session.restorer.found)
    elif trainer is not None:
        trainer_callbacks.forget_implicit_checkpoint(trainer, checkpoint)
        lacks = (
            f"{trainer.ckpt_path} was not written by checkpointable. Restored from it: what Lightning restores."
            " Not in it: best_val_loss, the checkpoints kept so far, randomness, and the position in the data."
        )
        if session.options.strict_resume:
            raise ResumeError(f"{lacks} To resume from it anyway, set strict_resume=False.")
        rank_zero_warn(lacks, category=CheckpointableWarning)


CheckpointingMixin._checkpointing_parts = {
    "configure_callbacks": (_attach_saving,),
    "on_validation_epoch_end": (_note_val_loss,),
    "on_save_checkpoint": (_add_state,),
    "on_load_checkpoint": (_take_state,),
}
