"""Trains three epochs of eight batches with loggers, resumes from what it finds, and dies of SIGKILL where told.

Arguments: the directory, the loggers (separated by commas), the batch of the run before which it dies (-1: never), the
door, and ``twin`` for a run in which no logger goes on. ``WORLD_SIZE`` ranks of DDP, if there are several.
"""

import os
import signal
import sys
import warnings
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from nets import QUIET, Net, PlainNet, loader

import checkpointable
from checkpointable.saving.logs import Logs

warnings.simplefilter("ignore")
where, names, dies_before, door, *how = Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]), *sys.argv[4:]
pl = import_module("pytorch_lightning" if door == "pl" else "lightning.pytorch")
options = {"save_interval": 4, "async_save": False, "dirpath": where / "files"}
ranks = int(os.environ.get("WORLD_SIZE", "1"))
if how == ["twin"]:
    Logs.prepare = lambda *_: None


class Dying(pl.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == dies_before:
            for logger in trainer.loggers:
                logger.save()
            os.kill(os.getpid(), signal.SIGKILL)


def logger(name):
    made = getattr(pl.loggers, name)
    if name == "MLFlowLogger":
        return made(tracking_uri=f"sqlite:///{where}/mlflow.db", artifact_location=f"{where}/artifacts", log_model=True)
    return made(save_dir=where, project="a", offline=True) if name == "WandbLogger" else made(where / name)


if door == "pl":
    from checkpointable.pl import CheckpointingModule

    class Net(CheckpointingModule):
        def __init__(self, **options):
            super().__init__(**options)
            self.layer = torch.nn.Linear(2, 2)

        def compute_loss(self, batch):
            return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])


pl.seed_everything(1, verbose=False)
callbacks = [Dying(), pl.callbacks.LearningRateMonitor("step")]
callbacks += [checkpointable.Checkpointing(**options)] if door == "callback" else []
trainer = pl.Trainer(
    **{**QUIET, "logger": [logger(name) for name in names], "devices": ranks},
    strategy="ddp" if ranks > 1 else "auto",
    max_epochs=3,
    log_every_n_steps=1,
    callbacks=callbacks,
    default_root_dir=where,
)
module = PlainNet() if door == "callback" else Net(**options)
trainer.fit(module, loader(8 * ranks, shuffle=True), loader(2), ckpt_path=checkpointable.latest(where / "files"))
if "WandbLogger" in names:
    import wandb

    wandb.finish()  # as at the end of a script
