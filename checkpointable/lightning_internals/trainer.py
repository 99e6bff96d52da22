"""What the library reads and sets in a trainer, one small function for each of Lightning's private names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

from checkpointable.lightning_internals.tree import combined, find, is_a
from checkpointable.policy.position import Ended, Position
from checkpointable.storage.paths import is_remote, normalize_path

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.utilities import CombinedLoader

    from checkpointable.lightning_internals.checkpoint_io import DurableCheckpointIO

_SEED = "PL_GLOBAL_SEED"
_HIDDEN = "_checkpointing_hidden_step"


def is_fitting(trainer: Trainer) -> bool:
    """Whether the trainer is inside ``fit`` (and not ``validate``, ``test`` or ``predict``)."""
    return trainer.state.fn == "fit"


def attached_trainer(module: LightningModule) -> Trainer | None:
    """The trainer of a module, or ``None``; Lightning's own property raises."""
    trainer: Trainer | None = module.__dict__.get("_trainer")
    return trainer if is_a(trainer, "Trainer") else None


def fast_dev_run(trainer: Trainer) -> bool:
    """Whether this is a dry run of a few batches."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def install_checkpoint_io(trainer: Trainer, mixin: type[DurableCheckpointIO]) -> None:
    """Put ``mixin`` before Lightning's default ``CheckpointIO``, also behind wrappers. One of the user's own stays."""
    *wrappers, base = checkpoint_ios(trainer)
    default = find(trainer, "TorchCheckpointIO")
    if type(base) is not default:
        return
    ours: Any = combined(mixin, default)(trainer)
    if wrappers:
        wrappers[-1]._checkpoint_io = ours  # the setter of its property does nothing once it has one
    else:
        trainer.strategy.checkpoint_io = ours


def own_checkpoint_io(trainer: Trainer) -> Any:
    """The ``CheckpointIO`` that saves have to go through. ``AsyncCheckpointIO`` is not: our saves are asynchronous."""
    thread = find(trainer, "AsyncCheckpointIO").save_checkpoint
    return next(io for io in checkpoint_ios(trainer) if type(io).save_checkpoint is not thread)


def base_checkpoint_io(trainer: Trainer) -> Any:
    """The ``CheckpointIO`` behind all wrappers, which writes the files."""
    return checkpoint_ios(trainer)[-1]


def checkpoint_ios(trainer: Trainer) -> list[Any]:
    """The trainer's ``CheckpointIO``, the one that it wraps, and so on."""
    found: list[Any] = [trainer.strategy.checkpoint_io]
    while is_a(found[-1], "_WrappingCheckpointIO"):
        found.append(found[-1].checkpoint_io)
    return found


def saves_whole_files(trainer: Trainer) -> bool:
    """Whether the strategy writes one file from rank 0 (and not a directory of shards)."""
    return bool(type(trainer.strategy).save_checkpoint is find(trainer, "Strategy").save_checkpoint)


def dump(trainer: Trainer, *, weights_only: bool) -> dict[str, Any]:
    """Return Lightning's checkpoint of the present state. Collective: every rank calls it."""
    checkpoint: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only)
    if weights_only:
        checkpoint.pop("loops", None)
    return checkpoint


def module_state(trainer: Trainer) -> dict[str, Any]:
    """The ``state_dict`` of the module, as Lightning saves it."""
    return trainer.strategy.lightning_module_state_dict()


def optimizer_state(trainer: Trainer, optimizer: Any) -> dict[str, Any]:
    """The ``state_dict`` of an optimizer, as Lightning saves it; empty where only rank 0 has it. Collective."""
    return trainer.strategy.optimizer_state(optimizer)


def callback_states(trainer: Trainer) -> dict[str, Any]:
    """The states of the callbacks, as they are in a checkpoint."""
    states: dict[str, Any] = find(trainer, "_call_callbacks_state_dict")(trainer)
    return states


def counted(trainer: Trainer) -> Position:
    """Lightning's counters after a whole batch, before the epoch has ended. In manual optimisation, ``step`` is 0."""
    fit_loop = trainer.fit_loop
    epoch_loop = fit_loop.epoch_loop
    progress = epoch_loop.batch_progress
    steps = epoch_loop.automatic_optimization.optim_progress.optimizer_steps
    return Position(
        epoch=fit_loop.epoch_progress.current.completed,
        batch=progress.current.completed,
        step=steps,
        batches=progress.total.completed,
    )


def training_loader(trainer: Trainer) -> CombinedLoader | None:
    """The loaders of training, once they are made."""
    return trainer.fit_loop._combined_loader


def validation_loader(trainer: Trainer) -> CombinedLoader | None:
    """The loaders of the validation inside a fit, once they are made."""
    return trainer.fit_loop.epoch_loop.val_loop._combined_loader


def global_seed() -> str | None:
    """What ``seed_everything`` was given; Lightning seeds distributed samplers and worker processes with it."""
    return os.environ.get(_SEED)


def set_global_seed(seed: str | None) -> None:
    """Set the seed of the run that is resumed, in place of the resuming script's own."""
    os.environ.pop(_SEED, None)
    if seed is not None:
        os.environ[_SEED] = seed


def epochs_done(trainer: Trainer) -> int:
    """The number that Lightning gives to ``set_epoch`` of the samplers."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def reloaded_epochs(trainer: Trainer) -> dict[str, float]:
    """The epochs in which the loaders were made, for ``reload_dataloaders_every_n_epochs``."""
    return {
        "training": trainer.fit_loop._last_train_dl_reload_epoch,
        "validation": trainer.fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch,
    }


def reloads(trainer: Trainer, loaded: float) -> bool:
    """Whether loaders that were made in this epoch are due to be made again."""
    every: int = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]  # set where mypy does not look
    return bool(every) and trainer.current_epoch - loaded >= every


def set_reloaded_epochs(trainer: Trainer, epochs: Mapping[str, float]) -> None:
    """Restore them, after the first making of the loaders has changed them."""
    trainer.fit_loop._last_train_dl_reload_epoch = epochs["training"]
    trainer.fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch = epochs["validation"]


def is_resuming(trainer: Trainer) -> bool:
    """Whether the file being read is a checkpoint to resume from: the ``Tuner`` undoes its trials with files, too."""
    return not os.path.basename(str(trainer.ckpt_path)).startswith((".lr_find_", ".scale_batch_size_"))


def ended(checkpoint: Mapping[str, Any]) -> Ended | None:
    """What had just ended by Lightning's counters in a checkpoint; ``None`` without counters."""
    if "loops" not in checkpoint:
        return None
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return Ended.EPOCH if progress["processed"] == progress["ready"] else Ended.BATCH


def end_epoch(checkpoint: dict[str, Any]) -> None:
    """Let the counters in a checkpoint say that the epoch has ended."""
    fit_loop = checkpoint["loops"]["fit_loop"]
    progress = fit_loop["epoch_progress"]
    ended = {
        part: {**count, "processed": count["ready"], "completed": count["ready"]} for part, count in progress.items()
    }
    checkpoint["loops"] = {**checkpoint["loops"], "fit_loop": {**fit_loop, "epoch_progress": ended}}


def stopped_early(trainer: Trainer) -> bool:
    """Whether ``should_stop`` has to be set after a resume, too: a longer run would have it here as well.

    That is so if an ``EarlyStopping`` set it, or if the run continues in spite of it until ``min_epochs`` or
    ``min_steps``.
    """
    stopped = any(callback.stopping_reason.value != 0 for callback in trainer.early_stopping_callbacks)
    return bool(trainer.should_stop) and (stopped or not trainer.fit_loop._can_stop_early)


def has_trained_before(trainer: Trainer) -> bool:
    """Whether this trainer has trained a batch, in an earlier ``fit`` or in the run of a loaded checkpoint."""
    return bool(trainer.fit_loop.epoch_loop.batch_progress.total.completed)


def inside_window(trainer: Trainer) -> bool:
    """Whether gradients are being accumulated that the next batch adds to, in automatic optimisation."""
    return trainer.accumulate_grad_batches != 1 and trainer.fit_loop.epoch_loop._should_accumulate()


def is_own_closure(closure: Any) -> bool:
    """Whether a step's closure is Lightning's, which runs forward, backward and ``on_before_optimizer_step``."""
    return isinstance(closure, partial) and getattr(closure.func, "__name__", "") == "_wrap_closure"


def logged_now(trainer: Trainer) -> dict[str, torch.Tensor]:
    """What the loop that is just ending has logged. (``callback_metrics`` also keeps values of earlier loops.)"""
    return _logged(trainer, trainer._results)


def logged_in_training(trainer: Trainer) -> dict[str, torch.Tensor]:
    """What this training epoch has logged so far."""
    return _logged(trainer, trainer.fit_loop.epoch_loop._results)


def _logged(trainer: Trainer, results: Any) -> dict[str, torch.Tensor]:
    metrics = trainer.callback_metrics
    names: set[str] = set()
    for result in () if results is None else results.result_metrics:
        if not result.has_reset:
            names.update(results._forked_name(result, on_step=False))
            names.update(results._forked_name(result, on_step=True))
    return {name: metrics[name] for name in names if name in metrics}


def fitting_trainer(module: LightningModule) -> Trainer | None:
    """The trainer that is fitting a module, or ``None``."""
    trainer = attached_trainer(module)
    return trainer if trainer is not None and is_fitting(trainer) else None


def logging_trainer(module: LightningModule) -> Trainer | None:
    """The trainer that a step can log to: ``None`` without one, or where it has logging switched off."""
    trainer = attached_trainer(module)
    return None if trainer is None or trainer.barebones else trainer


def evaluates_several_loaders(trainer: Trainer) -> bool:
    """Whether the running validation or test has more than one loader."""
    loop: Any = trainer._active_loop
    loop = loop.epoch_loop.val_loop if is_a(loop, "_FitLoop") else loop
    return is_a(loop, "_EvaluationLoop") and loop.num_dataloaders > 1


def checkpoint_directory(trainer: Trainer) -> str:
    """Where ``ModelCheckpoint`` would save: ``checkpoints`` under the log directory of the first logger."""
    if not trainer.loggers:
        return os.path.join(trainer.default_root_dir, "checkpoints")
    logger: Any = trainer.loggers[0]
    if is_a(logger, "TensorBoardLogger", "CSVLogger"):
        return os.path.join(logger.log_dir, "checkpoints")
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return os.path.join(logger.save_dir or trainer.default_root_dir, str(logger.name), version, "checkpoints")


def resume_path(trainer: Trainer) -> str | None:
    """The file that this fit resumes from, with links resolved; ``None`` if it is a new run."""
    path = normalize_path(trainer.ckpt_path) if trainer.ckpt_path else None
    return path if path is None or is_remote(path) else os.path.realpath(path)


def loaded_checkpoint(trainer: Trainer) -> Mapping[str, Any] | None:
    """What was read from the file that this fit resumes from, until the training begins."""
    loaded: Mapping[str, Any] | None = trainer._checkpoint_connector._loaded_checkpoint
    return loaded


def set_resume_path(trainer: Trainer, path: str) -> None:
    """Let the fit resume from another file than the one it was given."""
    trainer._checkpoint_connector._ckpt_path = path


def has_val_loader(trainer: Trainer) -> bool:
    """Whether a validation loader was given, to ``fit``, in the module or in a data module."""
    return bool(trainer.fit_loop.epoch_loop.val_loop._data_source.is_defined())


def hide_validation_step(module: LightningModule) -> None:
    """Hide ``validation_step`` until ``show_validation_step``: without a loader, Lightning would ask for one."""
    attributes = module.__dict__
    attributes.setdefault(_HIDDEN, attributes.get("validation_step"))
    attributes["validation_step"] = MethodType(find(module, "LightningModule").validation_step, module)


def show_validation_step(module: LightningModule) -> None:
    """Undo ``hide_validation_step``. A step that ``torch.compile`` had set on the instance is set again."""
    attributes = module.__dict__
    if _HIDDEN in attributes:
        compiled = attributes.pop(_HIDDEN)
        del attributes["validation_step"]
        if compiled is not None:
            attributes["validation_step"] = compiled
