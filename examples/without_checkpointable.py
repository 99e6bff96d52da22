"""Checkpoints with Lightning alone, as a careful user sets them up. Compare with ``with_checkpointable.py``.

You learn what there is to write: two steps, an optimizer, callbacks for regular saves and the best weights, the trick
that keeps only the newest file, and the search for it. And you see that a resumed epoch never sees some of its images.
"""

import logging
import tempfile
import warnings
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*does not have many workers|.*exists and is not empty|.*treespec")
CUT_AT = (2, 25)  # epoch, batch


class LitDigits(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))

    def compute_loss(self, batch):
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def training_step(self, batch, batch_idx):
        loss = self.compute_loss(batch)
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.compute_loss(batch), prog_bar=True, batch_size=len(batch[0]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


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
    folder = f"{directory}/checkpoints"
    newest_only = {"monitor": "step", "mode": "max", "save_top_k": 1}
    interval = ModelCheckpoint(folder, "interval-{epoch}-{step}", every_n_train_steps=10, **newest_only)
    best = ModelCheckpoint(folder, "best-{epoch}-{val_loss:.3f}", monitor="val_loss", mode="min", save_top_k=1)
    newest = max(Path(folder).glob("interval-*.ckpt"), key=lambda file: file.stat().st_mtime, default=None)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=5, accelerator="cpu", callbacks=[callback, interval, best], **quiet)
    trainer.fit(model, train_loader, val_loader, ckpt_path=newest)
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
