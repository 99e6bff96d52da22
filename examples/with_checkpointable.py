"""The same training as ``without_checkpointable.py``, with ``CheckpointingModule``. Compare the two.

You learn what is left to write: the layers and ``compute_loss``. The steps, the optimizer, a save every 10 batches and
the best weights come with the base class. ``latest`` finds the file to resume from. Here that is the state at the
exception itself, and the epoch continues with the images it has not seen yet.
"""

import logging
import tempfile
import warnings
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from checkpointable import CheckpointingModule, latest

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*does not have many workers|.*treespec")
CUT_AT = (2, 25)  # epoch, batch


class LitDigits(CheckpointingModule):
    def __init__(self):
        super().__init__(save_interval=10)
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))

    def compute_loss(self, batch):
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)


class PowerCut(Callback):
    """Prints where training starts, stops it in an epoch, and records the images trained on in that epoch."""

    def __init__(self, seen, at=None):
        self.seen, self.at = seen, at
        self.started = False

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if not self.started:
            print(f"training starts at epoch {trainer.current_epoch}, batch {batch_idx}")
        self.started = True
        if (trainer.current_epoch, batch_idx) == self.at:
            raise RuntimeError(f"power cut in epoch {trainer.current_epoch}, before batch {batch_idx}")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.current_epoch == CUT_AT[0]:
            self.seen.update(map(tuple, batch[0].tolist()))


def train(directory, train_loader, val_loader, callback):
    model = LitDigits()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=5, accelerator="cpu", default_root_dir=directory, callbacks=[callback], **quiet)
    trainer.fit(model, train_loader, val_loader, ckpt_path=latest(directory))
    return model


def main(directory):
    L.seed_everything(1, verbose=False)
    images, labels = load_digits(return_X_y=True)
    digits = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    training, held_out = random_split(digits, [1500, 297])
    loaders = DataLoader(training, batch_size=32, shuffle=True), DataLoader(held_out, batch_size=297)

    seen = set()
    try:
        train(directory, *loaders, PowerCut(seen, CUT_AT))
    except RuntimeError as error:
        print(error)
    model = train(directory, *loaders, PowerCut(seen))

    print(f"images trained on in epoch {CUT_AT[0]}: {len(seen)} of {len(training)}")
    print("files:", *sorted(file.name for file in Path(directory).rglob("*.ckpt")), sep="\n  ")
    images, labels = next(iter(loaders[1]))
    print(f"accuracy on held-out images: {(model.net(images).argmax(1) == labels).float().mean():.1%}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(temporary)
