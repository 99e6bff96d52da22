"""Kill a training with SIGKILL inside an epoch, run it again, and compare with a run that was never stopped.

You learn what lies on disk after a crash that no program can react to, that going on takes one argument
(``ckpt_path=latest(directory)``, which is ``None`` the first time), and that every loss from there on and the final
state are those of the run without a stop, to the last bit: with shuffled images, dropout and random noise in the
dataset, and with another random seed in the process that goes on.
"""

import contextlib
import hashlib
import io
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import warnings

import lightning as L
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset

from checkpointable import CheckpointingModule, Checkpoints, latest

KILL_AT = (1, 26)  # epoch, batches done in it


class NoisyDigits(Dataset):
    def __init__(self, images, labels):
        self.images, self.labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):  # the same image looks different every time
        return self.images[index] * random.uniform(0.8, 1.2) + 0.1 * np.random.randn(64).astype("f"), self.labels[index]


class LitDigits(CheckpointingModule):
    def __init__(self, kill):
        super().__init__(save_interval=10)
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))
        self.kill = kill

    def compute_loss(self, batch):
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        print("batch", self.current_epoch, batch_idx + 1, outputs["loss"].item(), flush=True)
        if self.kill and (self.current_epoch, batch_idx + 1) == KILL_AT:
            os.kill(os.getpid(), signal.SIGKILL)  # no handler runs, nothing is written


def train(directory, seed, kill=False):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers|.*treespec")
    L.seed_everything(seed, verbose=False)
    images, labels = load_digits(return_X_y=True)
    loader, held_out = DataLoader(NoisyDigits(images[:1500], labels[:1500]), batch_size=32, shuffle=True), images[1500:]
    model = LitDigits(kill)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=4, accelerator="cpu", default_root_dir=directory, **quiet)
    trainer.fit(model, loader, ckpt_path=latest(directory))

    moments = [value for state in trainer.optimizers[0].state_dict()["state"].values() for value in state.values()]
    tensors = [*model.state_dict().values(), *moments, torch.get_rng_state()]
    state = b"".join(tensor.numpy().tobytes() for tensor in tensors) + repr(random.getstate()).encode()
    print("sha256", hashlib.sha256(state + np.random.get_state()[1].tobytes()).hexdigest())
    guesses = model.eval().net(torch.tensor(held_out / 16, dtype=torch.float32)).argmax(1)
    print(f"accuracy {(guesses == torch.tensor(labels[1500:])).float().mean():.1%}")


def losses_and_results(text):
    words = [line.split() for line in text.splitlines()]
    losses = {(int(line[1]), int(line[2])): float(line[3]) for line in words if line[0] == "batch"}
    return losses, {line[0]: line[1] for line in words if line[0] != "batch"}


def in_a_process(directory, seed, *flags):
    command = [sys.executable, __file__, "--train", directory, str(seed), *flags]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if process.returncode != (-signal.SIGKILL if flags else 0):
        raise SystemExit(f"the training ended with exit code {process.returncode}")
    return losses_and_results(process.stdout)
