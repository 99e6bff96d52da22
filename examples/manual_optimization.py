"""A GAN with two optimizers and its own ``training_step``, interrupted in the middle of an epoch and resumed.

You learn that ``CheckpointingMixin`` is one word in the class line of a module that you already have, and that saves
are counted in batches. ``trainer.global_step`` counts every step of every optimizer, so here it counts twice per batch.
"""

import logging
import tempfile
import warnings
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from checkpointable import CheckpointingMixin, Checkpoints, latest

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*does not have many workers|.*treespec")


class GAN(CheckpointingMixin, L.LightningModule):
    def __init__(self):
        super().__init__(save_interval=10, monitor=None)
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64), nn.Sigmoid())
        self.discriminator = nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))

    def training_step(self, batch, batch_idx):
        (real,) = batch
        generator_optimizer, discriminator_optimizer = self.optimizers()
        fake = self.generator(torch.randn(len(real), 16))
        yes, no = torch.ones(len(real), 1), torch.zeros(len(real), 1)

        judged = self.discriminator(torch.cat([real, fake.detach()]))
        discriminator_loss = F.binary_cross_entropy_with_logits(judged, torch.cat([yes, no]))
        discriminator_optimizer.zero_grad()
        self.manual_backward(discriminator_loss)
        discriminator_optimizer.step()

        generator_loss = F.binary_cross_entropy_with_logits(self.discriminator(fake), yes)
        generator_optimizer.zero_grad()
        self.manual_backward(generator_loss)
        generator_optimizer.step()
        self.log_dict({"generator_loss": generator_loss, "discriminator_loss": discriminator_loss})

    def configure_optimizers(self):
        return [torch.optim.Adam(net.parameters(), lr=2e-3) for net in (self.generator, self.discriminator)]


class PowerCut(Callback):
    """Prints where training starts, and stops it in the middle of an epoch."""

    def __init__(self, epoch=None, batch=None):
        self.at = (epoch, batch)
        self.started = False

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if not self.started:
            print(f"training starts at epoch {trainer.current_epoch}, batch {batch_idx}")
        self.started = True
        if (trainer.current_epoch, batch_idx) == self.at:
            raise RuntimeError(f"power cut in epoch {trainer.current_epoch}, before batch {batch_idx}")


def train(directory, loader, callback):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=4, accelerator="cpu", default_root_dir=directory, callbacks=[callback], **quiet)
    trainer.fit(GAN(), loader, ckpt_path=latest(directory))
    return trainer


def main(directory):
    L.seed_everything(1, verbose=False)
    images = torch.tensor(load_digits().images / 16, dtype=torch.float32).flatten(1)
    loader = DataLoader(TensorDataset(images), batch_size=32, shuffle=True)
    try:
        train(directory, loader, PowerCut(epoch=2, batch=25))
    except RuntimeError as error:
        print(error)
    trainer = train(directory, loader, PowerCut())

    print(*(f"{name}: {value:.3f}" for name, value in trainer.callback_metrics.items()), sep="\n")
    for info in Checkpoints(directory):
        print(f"{Path(info.path).name}: {info.kind}, {info.batches} batches in all, {info.step} of them with a step")
    print(f"trainer.global_step: {trainer.global_step}, in {trainer.current_epoch} epochs of {len(loader)} batches")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(temporary)
