"""``CheckpointingMixin``: a LightningModule that saves itself and resumes.

What saves is imported when the first module is made, so that a script that only imports the class does not wait for it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from checkpointable._errors import NotInitializedError, ResumeError
from checkpointable.lightning_internals import trainer as internals
from checkpointable.module import user_names
from checkpointable.module.hyper_parameters import not_the_authors
from checkpointable.module.super_calls import Parts, guard, part
from checkpointable.policy.options import Options
from checkpointable.policy.unknown_arguments import naming_unknown_arguments

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Callback, LightningModule

    from checkpointable.saving.session import Session

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
        save_weights_only: Leave out optimizers, schedulers and loops. Such a file cannot be resumed from. ``"best"``:
            from the best checkpoints alone. With each of them, one that holds everything becomes the newest.
        save_trainable_only: Leave out parameters that require no gradients, and the buffers of modules in whose part of
            the network none does, as long as they have the values that the script gave them. The file has their
            checksums. The module brings them itself when it is resumed or loaded, and a warning says if they differ.
        dirpath: Directory or URL; relative to the working directory at construction. ``None`` = ``checkpoints`` under
            the trainer's log directory, or the directory of the checkpoint resumed from.
        fast_dirpath: A second, local directory where each file is saved first, so that saving does not wait for
            ``dirpath``, which must be given. The best ones and the last are always copied to ``dirpath`` in the
            background, of the others the newest every so often. Resume with ``latest([fast_dirpath, dirpath])``.
        upload_interval: The least time between the beginnings of two such copies of interval, time, step and epoch
            checkpoints; ``None``: the next one begins as soon as the copy before is done.
        filename: Template: ``{epoch}`` (from 0), ``{batch}`` (batches done in this epoch), ``{step}`` (optimizer steps
            done), any logged metric, with format specs.
        best_filename: The same for best checkpoints; ``{monitor}`` is the name of the monitored quantity.
        auto_insert_metric_name: ``{epoch:02d}`` becomes ``epoch=02``.
        async_save: Write in the background; ``False``: training waits until each file is durable.
        resume: ``"auto"``: a ``fit`` without ``ckpt_path`` resumes from the newest checkpoint in ``dirpath``, if one is
            there; ``"must"``: or is refused. Holds for the first fit of a process in that ``dirpath``. ``None``: only
            ``ckpt_path`` decides.
        strict_resume: Refuse to resume when anything could not be restored exactly.
        from_script: What a resume takes from the script in place of the file: any of ``"learning_rate"`` (all numbers
            of the parameter groups), ``"lr_schedulers"``, ``"optimizers"``, ``"data"``, ``"randomness"`` and
            ``"callbacks"``, one word or a list.
        save_timeout: How long a save waits for a missing rank, in seconds, where the ranks talk through gloo. Then it
            raises ``SaveError``.
        deadline_seconds: How long the process may live after SIGTERM or SLURM's signal, in seconds. A save that would
            take longer than is left, by the time that the last such save took, is not begun.
        log_save_cost: Give the cost of each save to the loggers: ``save/blocked_seconds`` (training waited),
            ``save/write_seconds`` (in the background) and ``save/size_bytes``.
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
        options = Options(**{name: given[name] for name in Options.__dataclass_fields__})
        with naming_unknown_arguments(type(self), kwargs):
            super().__init__(*args, **kwargs)
        from checkpointable.saving.session import Session

        self._checkpointing = Session(options)

    def __getattr__(self, name: str) -> Any:
        """As ``torch.nn.Module``; where the module has nothing of that name, also the attributes of the run.

        They are ``best_val_loss``, ``best_model_path``, ``best_model_score``, ``best_k_models``, ``last_model_path``
        and ``save_interval``. They are at ``trainer.checkpoint_callback``, too.

        Raises:
            NotInitializedError: If a private attribute is read before ``super().__init__()`` was called. It is an
                ``AttributeError`` too, so that ``hasattr`` and ``getattr`` with a default answer as in any module.
        """
        is_early = "_parameters" not in self.__dict__ and name.startswith("_") and not name.startswith("__")
        if is_early or name == "_checkpointing":
            raise NotInitializedYetError(str(_not_initialized(type(self))))
        try:
            return super().__getattr__(name)
        except AttributeError:
            if not user_names.answers(self, name):
                raise
        return user_names.read(self, name)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        guard(cls)

    def register_buffer(self, name: str, tensor: torch.Tensor | None, persistent: bool = True) -> None:
        """As ``torch.nn.Module.register_buffer``; attributes such as ``best_val_loss`` do not take a name.

        Torch looks for the name of the last argument where a buffer is assigned.
        """
        with user_names.free(self, name):
            super().register_buffer(name, tensor, persistent)

    def register_parameter(self, name: str, *args: Any, **kwargs: Any) -> None:
        """As ``torch.nn.Module.register_parameter``; attributes such as ``best_val_loss`` do not take a name."""
        with user_names.free(self, name):
            super().register_parameter(name, *args, **kwargs)

    def add_module(self, name: str, *args: Any, **kwargs: Any) -> None:
        """As ``torch.nn.Module.add_module``; attributes such as ``best_val_loss`` do not take a name."""
        with user_names.free(self, name):
            super().add_module(name, *args, **kwargs)

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

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: Sequence[str] | str | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """As Lightning's. This library's arguments are saved only if an ``__init__`` of yours names them."""
        if frame is None:
            here = inspect.currentframe()
            frame = None if here is None else here.f_back
        given = [ignore] if isinstance(ignore, str) else list(ignore or ())
        ignored = [*given, *not_the_authors(self, args)]
        super().save_hyperparameters(*args, ignore=ignored, frame=frame, logger=logger)

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
    names = [base.__name__ for base in cls.__mro__]
    cure = "Call super().__init__() in the first line of every __init__."
    if names.index("LightningModule") < names.index("CheckpointingMixin"):
        cure = f"Put the mixin first: class {cls.__name__}(CheckpointingMixin, LightningModule)."
    return NotInitializedError(
        f"{cls.__name__} was not initialised: its __init__ does not reach CheckpointingMixin.__init__. {cure}"
    )


def _attach_saving(module: Any) -> None:
    session, trainer = _session(module), internals.attached_trainer(module)
    if trainer is not None:
        from checkpointable.saving import attach

        attach.attach(trainer, session)


def _note_val_loss(module: Any) -> None:
    trainer = internals.fitting_trainer(module)
    if trainer is not None and not trainer.sanity_checking and _session(module).trial is None:
        _session(module).progress.note_val_loss(trainer)


def _add_state(module: Any, checkpoint: dict[str, Any]) -> None:
    from checkpointable.saving import run_state

    run_state.add(_session(module), internals.attached_trainer(module), checkpoint)


def _take_state(module: Any, checkpoint: dict[str, Any]) -> None:
    from checkpointable.saving import run_state

    run_state.take(_session(module), internals.attached_trainer(module), checkpoint, module)


CheckpointingMixin._checkpointing_parts = {
    "configure_callbacks": (_attach_saving,),
    "on_validation_epoch_end": (_note_val_loss,),
    "on_save_checkpoint": (_add_state,),
    "on_load_checkpoint": (_take_state,),
}
