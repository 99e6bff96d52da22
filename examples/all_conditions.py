"""Every condition at once: when to save, which files to keep, what they contain, and what they are called.

You learn that conditions combine by *or*, that one file serves all conditions that are due at the same moment, and that
each file says why it was kept.
"""

import logging
import sys
import tempfile
import warnings
from datetime import timedelta
from pathlib import Path

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from checkpointable import CheckpointingModule, Checkpoints

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*does not have many workers|.*treespec")


class LitDigits(CheckpointingModule):
    def __init__(self, directory):
        super().__init__(
            # when
            save_interval=30,  # batches, counted within the epoch
            every_n_train_steps=50,  # optimizer steps, counted over the whole training
            train_time_interval=timedelta(seconds=1),
            every_n_epochs=2,
            keep_every_n_epochs=3,  # these files are never deleted
            # which
            monitor="val_accuracy",
            mode="max",
            min_delta=0.001,  # less is not an improvement
            save_top_k=2,
            save_last_k=6,  # newest of all the others together
            # what
            save_weights_only=False,
            # where
            dirpath=directory,
            filename="epoch_{epoch:02d}_batch_{batch:02d}_step_{step:03d}",
            best_filename="best_accuracy_{val_accuracy:.3f}_loss_{val_loss:.2f}_epoch_{epoch:02d}",
            # the default optimizer
            learning_rate=1e-3,
        )
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))

    def compute_loss(self, batch):
        images, labels = batch
        scores = self.net(images)
        accuracy = (scores.argmax(1) == labels).float().mean()
        return {"loss": F.cross_entropy(scores, labels), "accuracy": accuracy}  # logged as train_accuracy, val_accuracy


def main(directory):
    L.seed_everything(1, verbose=False)
    images, labels = load_digits(return_X_y=True)
    digits = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    training, held_out = random_split(digits, [1500, 297])
    loaders = DataLoader(training, batch_size=32, shuffle=True), DataLoader(held_out, batch_size=297)

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=6, accelerator="cpu", **quiet)
    trainer.fit(LitDigits(directory), *loaders)

    checkpoints = Checkpoints(directory)
    print(f"{'file':50} {'saved because of':30} val_accuracy")
    for info in checkpoints:
        accuracy = f"{info.score:.4f}" if info.score is not None else ""
        print(f"{Path(info.path).name:50} {', '.join(info.reasons):30} {accuracy}")
    for link in ("last.ckpt", "best.ckpt"):
        print(f"{link} points at {Path(directory, link).resolve().name}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(sys.argv[1] if len(sys.argv) > 1 else temporary)
