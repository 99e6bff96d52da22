"""Kill a training with SIGKILL in the middle of an epoch, run the same command again, and it goes on.

You learn what lies on disk after a crash that no program can react to, and that resuming takes one argument:
``ckpt_path=latest(directory)``, which is ``None`` the first time.
"""

import logging
import signal
import subprocess
import sys
import tempfile
import time
import warnings

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from checkpointable import CheckpointingModule, Checkpoints, latest

KILL_AT = (1, 26)  # epoch, batch


class LitDigits(CheckpointingModule):
    def __init__(self):
        super().__init__(save_interval=10, learning_rate=3e-3)
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))

    def compute_loss(self, batch):
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        print("batch", self.current_epoch, batch_idx + 1, flush=True)  # for the process that watches
        time.sleep(0.01)  # a batch worth interrupting


def train(directory):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers|.*treespec")
    L.seed_everything(1, verbose=False)
    images, labels = load_digits(return_X_y=True)
    digits = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    training, held_out = random_split(digits, [1500, 297])
    loaders = DataLoader(training, batch_size=32, shuffle=True), DataLoader(held_out, batch_size=297)

    model = LitDigits()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=4, accelerator="cpu", default_root_dir=directory, **quiet)
    trainer.fit(model, *loaders, ckpt_path=latest(directory))

    images, labels = next(iter(loaders[1]))
    accuracy = (model.net(images).argmax(1) == labels).float().mean()
    print(f"finished {trainer.current_epoch} epochs; accuracy on held-out images: {accuracy:.1%}")


def run_in_a_process(directory, *, kill):
    command = [sys.executable, __file__, "--train", directory]
    position = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if not line.startswith("batch"):
                print(line, end="")
                continue
            epoch, batch = map(int, line.split()[1:])
            if position is None:
                print(f"process {process.pid} trains from epoch {epoch}, batch {batch - 1}")
            position = epoch, batch
            if kill and position == KILL_AT:
                process.kill()  # SIGKILL: no handler runs, nothing is flushed
    if process.returncode != (-signal.SIGKILL if kill else 0):
        raise SystemExit(f"the training ended with exit code {process.returncode}")
    if kill:
        print(f"killed with SIGKILL in epoch {epoch}, after {batch} of its 47 batches")


def main(directory):
    run_in_a_process(directory, kill=True)
    print(f"\non disk in {directory}:\n{Checkpoints(directory)}\n\nthe same command again:")
    run_in_a_process(directory, kill=False)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(sys.argv[2])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(temporary)
