"""Every name of Lightning that this room uses, in one list that ``check`` walks before a trainer is used.

Each was read and tried on Lightning 2.6.6. Nothing here imports Lightning.
"""

from __future__ import annotations

# Where classes and functions lie in a tree. ``pytorch`` stands for ``lightning.pytorch`` or ``pytorch_lightning``, and
# ``fabric`` for ``lightning.fabric`` or ``lightning_fabric``.
IMPORTED = (
    "fabric.utilities.data._set_sampler_epoch",
    "fabric.utilities.data.sized_len",
    "pytorch.LightningModule",
    "pytorch.Trainer",
    "pytorch.callbacks.BatchSizeFinder",
    "pytorch.callbacks.Checkpoint",
    "pytorch.callbacks.LearningRateFinder",
    "pytorch.callbacks.ModelCheckpoint",
    "pytorch.loggers.CSVLogger",
    "pytorch.loggers.TensorBoardLogger",
    "pytorch.loops.evaluation_loop._EvaluationLoop",
    "pytorch.loops.fit_loop._FitLoop",
    "pytorch.loops.loop._Loop",
    "pytorch.plugins.io.AsyncCheckpointIO",
    "pytorch.plugins.io.TorchCheckpointIO",
    "pytorch.plugins.io.wrapper._WrappingCheckpointIO",
    "pytorch.strategies.Strategy",
    "pytorch.trainer.connectors.logger_connector.result._Metadata",
    "pytorch.trainer.connectors.logger_connector.result._ResultMetric",
    "pytorch.trainer.connectors.logger_connector.result._Sync",
    "pytorch.utilities.CombinedLoader",
    "pytorch.utilities.combined_loader._MaxSizeCycle",
    "pytorch.tuner.lr_finder._determine_lr_attr_name",
    "pytorch.utilities.exceptions.SIGTERMException",
    "pytorch.utilities.parsing.lightning_getattr",
    "pytorch.utilities.parsing.lightning_setattr",
)

# What a trainer has. The methods of loops without an underscore are those that the observers override.
OF_TRAINER = (
    "_active_loop",
    "_callback_connector._reorder_callbacks",
    "_checkpoint_connector._ckpt_path",
    "_checkpoint_connector._loaded_checkpoint",
    "_checkpoint_connector.dump_checkpoint",
    "_logger_connector._callback_metrics",
    "_logger_connector._first_loop_iter",
    "_logger_connector._logged_metrics",
    "_logger_connector._progress_bar_metrics",
    "_results",
    "precision_plugin._wrap_closure",
    "fit_loop._can_stop_early",
    "fit_loop._combined_loader",
    "fit_loop._combined_loader_states_to_load",
    "fit_loop._last_train_dl_reload_epoch",
    "fit_loop._load_combined_loader_states",
    "fit_loop._restarting",
    "fit_loop._resuming_from_checkpoint",
    "fit_loop.epoch_progress.current.completed",
    "fit_loop.load_state_dict",
    "fit_loop.on_advance_end",
    "fit_loop.on_advance_start",
    "fit_loop.on_run_end",
    "fit_loop.on_run_start",
    "fit_loop.reset",
    "fit_loop.run",
    "fit_loop.teardown",
    "fit_loop.epoch_loop._batches_that_stepped",
    "fit_loop.epoch_loop._num_ready_batches_reached",
    "fit_loop.epoch_loop._restarting",
    "fit_loop.epoch_loop._results._forked_name",
    "fit_loop.epoch_loop._should_accumulate",
    "fit_loop.epoch_loop.advance",
    "fit_loop.epoch_loop.batch_progress.current.completed",
    "fit_loop.epoch_loop.batch_progress.total.completed",
    "fit_loop.epoch_loop.on_advance_end",
    "fit_loop.epoch_loop.reset",
    "fit_loop.epoch_loop.val_loop._combined_loader",
    "fit_loop.epoch_loop.val_loop._data_source",
    "fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch",
    "fit_loop.epoch_loop.val_loop._restarting",
    "fit_loop.epoch_loop.val_loop.setup_data",
)

# What an instance of an imported class has.
OF_CLASSES = (
    "BatchSizeFinder._batch_arg_name",
    "BatchSizeFinder.on_fit_start",
    "BatchSizeFinder.scale_batch_size",
    "CombinedLoader.__iter__",
    "CombinedLoader.__next__",
    "CombinedLoader._flattened",
    "CombinedLoader._iterator",
    "CombinedLoader._state_dicts",
    "LearningRateFinder._attr_name",
    "LearningRateFinder._update_attr",
    "LearningRateFinder.lr_find",
    "LearningRateFinder.on_fit_start",
    "LightningModule._trainer",
    "ModelCheckpoint._find_last_checkpoints",
    "TorchCheckpointIO.load_checkpoint",
    "TorchCheckpointIO.save_checkpoint",
    "_MaxSizeCycle._consumed",
    "_Metadata._sync",
    "_ResultMetric._computed",
    "_ResultMetric._defaults",
    "_ResultMetric._forward_cache",
    "_ResultMetric._update_count",
    "_Sync._should",
    "_WrappingCheckpointIO._checkpoint_io",
)

# The fields of ``_Metadata`` that are saved as they are. ``reduce_fx`` and ``_sync`` are saved apart.
METADATA_FIELDS = (
    *("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph"),
    *("add_dataloader_idx", "dataloader_idx", "metric_attribute"),
)
