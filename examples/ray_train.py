"""Ray Train: a worker that dies is started again, and goes on from the newest durable checkpoint that Ray has.

You learn how a callback reports durable checkpoints to Ray, and how a worker resumes from what Ray gives back. Needs
``pip install "ray[train]"``; without it, this says so and ends.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
import warnings

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from checkpointable import CheckpointingModule, latest

try:
    import ray.train
    from ray.train.torch import TorchTrainer
except ImportError:
    print('this example needs Ray: pip install "ray[train]"')
    sys.exit()

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*does not have many workers|.*treespec")


class ReportToRay(L.Callback):
    """Reports the newest durable checkpoint to Ray, at the end of each epoch and of the training."""

    reported = None

    def on_train_epoch_end(self, trainer, module):
        with tempfile.TemporaryDirectory() as directory:  # Ray takes a whole directory
            copied = self.copy_newest(trainer, directory) if trainer.is_global_zero else None
            name = trainer.strategy.broadcast(copied and os.path.basename(copied))  # all workers report together
            if name and name != self.reported:
                self.reported = name
                metrics = {metric: float(value) for metric, value in trainer.callback_metrics.items()}
                ray.train.report(metrics, checkpoint=copied and ray.train.Checkpoint.from_directory(directory))

    on_train_end = on_train_epoch_end  # the last checkpoint is durable now

    def copy_newest(self, trainer, directory):
        while path := trainer.checkpoint_callback.last_model_path:
            try:
                return shutil.copy(path, directory)
            except FileNotFoundError:  # deleted meanwhile, since a newer one is durable
                continue
        return None


class LitDigits(CheckpointingModule):
    def __init__(self, dirpath, dies):
        super().__init__(dirpath=dirpath, save_interval=20, every_n_epochs=1, learning_rate=3e-3)
        self.dies = dies
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))

    def compute_loss(self, batch):
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def on_train_epoch_start(self):
        if self.dies and self.current_epoch == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def train():
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    loader = DataLoader(TensorDataset(images.float() / 16, labels), batch_size=32, shuffle=True)
    given = ray.train.get_checkpoint()
    with tempfile.TemporaryDirectory() as files, tempfile.TemporaryDirectory() as earlier:
        ckpt_path = None if given is None else latest(given.to_directory(earlier))
        print("this worker resumes from:", ckpt_path and os.path.basename(ckpt_path), flush=True)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = L.Trainer(max_epochs=5, accelerator="cpu", devices=1, callbacks=[ReportToRay()], **quiet)
        trainer.fit(LitDigits(files, dies=given is None), loader, ckpt_path=ckpt_path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as storage:
        failures = ray.train.FailureConfig(max_failures=1)
        config = ray.train.RunConfig(storage_path=storage, name="digits", failure_config=failures)
        result = TorchTrainer(train, run_config=config).fit()
        print("loss:", round(result.metrics["train_loss"], 4), "Ray has:", os.listdir(result.checkpoint.path))
