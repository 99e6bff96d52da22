"""Kill a training with SIGKILL inside an epoch, run it again, and compare it with a run that was never stopped.

You learn what is on disk after a crash that no program can react to, and that resuming takes one argument:
``ckpt_path=latest(directory)``, which is ``None`` the first time. Every loss after the resume and the final state equal
those of the run without a stop, to the last bit. This holds with shuffled images, dropout, random noise in the data
set, and another random seed in the resumed process.
"""

import ast
import hashlib
import logging
import os
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
from torch.utils.data import DataLoader, TensorDataset

from checkpointable import CheckpointingModule, Checkpoints, latest

KILL_AT = (1, 26)  # epoch, batches done in it


class NoisyDigits(TensorDataset):
    def __getitem__(self, index):  # the same image looks different every time
        image, label = super().__getitem__(index)
        return image + 0.1 * torch.from_numpy(np.random.randn(64)).float(), label


class LitDigits(CheckpointingModule):
    def __init__(self, kill):
        super().__init__(save_interval=10, learning_rate=3e-3)
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))
        self.kill, self.losses = kill, {}

    def compute_loss(self, batch):
        scores, labels = self.net(batch[0]), batch[1]
        accuracy = (scores.argmax(1) == labels).float().mean()
        return {"loss": nn.functional.cross_entropy(scores, labels), "accuracy": accuracy}

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.losses[self.current_epoch, batch_idx + 1] = outputs["loss"].item()
        if self.kill and (self.current_epoch, batch_idx + 1) == KILL_AT:
            print(self.losses, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)  # no handler runs, nothing is saved


def train(directory, seed, kill=False):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers|.*treespec")
    torch.set_num_threads(1)  # the model is too small for more
    L.seed_everything(seed, verbose=False)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = images.float() / 16
    train_loader = DataLoader(NoisyDigits(images[:1500], labels[:1500]), batch_size=32, shuffle=True)
    val_loader = DataLoader(TensorDataset(images[1500:], labels[1500:]), batch_size=297)
    model = LitDigits(kill)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=4, accelerator="cpu", default_root_dir=directory, **quiet)
    trainer.fit(model, train_loader, val_loader, ckpt_path=latest(directory))
    state = [*model.state_dict().values(), torch.get_rng_state(), *map(torch.tensor, np.random.get_state()[1:3])]
    state += [value for values in trainer.optimizers[0].state.values() for value in values.values()]
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in state)).hexdigest()
    return model.losses, f"{trainer.callback_metrics['val_accuracy']:.1%}", digest


def main(directory):
    process = subprocess.run([sys.executable, __file__, directory, "--kill"], stdout=subprocess.PIPE, text=True)
    killed = ast.literal_eval(process.stdout)
    print(f"killed in epoch 1 after batch {max(killed)[1]}, exit code {process.returncode}; on disk:")
    print(Checkpoints(directory))
    resumed, *results = train(directory, seed=2)
    epoch, first = min(resumed)
    print(f"\nrun again under another seed: resumed in epoch {epoch} at batch {first}\n")
    straight, *expected = train(f"{directory}/straight", seed=1)

    print(f"batch  {'loss without a stop':19}  {'until the kill':19}  {'run again':19}  equal")
    for batch in range(first - 2, KILL_AT[1] + 4):
        losses = [run.get((epoch, batch), "") for run in (straight, killed, resumed)]
        print(f"{batch:5}", *(f"{loss:<19}" for loss in losses), len({*losses, ""}) == 2, sep="  ")
    equal = sum(resumed[position] == straight[position] for position in resumed)
    print(f"losses after the resume equal to those without a stop: {equal} of {len(resumed)}\n\nat the end")
    for name, (accuracy, digest) in {"without a stop": expected, "killed, run again": results}.items():
        print(f"{name:17}  accuracy on held-out images {accuracy}  SHA-256 of the state {digest}")
    return int(equal < len(resumed) or results != expected)


if __name__ == "__main__":
    if sys.argv[2:] == ["--kill"]:
        train(sys.argv[1], seed=1, kill=True)
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(temporary))
