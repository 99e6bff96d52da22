"""Small real modules and loaders that the tests train."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from checkpointable import CheckpointingMixin, CheckpointingModule
from checkpointable.lightning_internals.checkpoint_io import DurableCheckpointIO
from checkpointable.lightning_internals.tree import combined
from checkpointable.saving import saver
from checkpointable.storage.format import archive, zip_directory
from checkpointable.storage.staging.snapshot import Snapshot

SOON_SECONDS = saver._SOON_SECONDS  # after which a save that is due gives way to one that is under way
saver._SOON_SECONDS = 300.0  # here none does, however busy the machine is: each file that a test expects is saved

QUIET: dict[str, Any] = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
    "accelerator": "cpu",
    "devices": 1,
}


def loader(batches: int = 10, *, shuffle: bool = False, seed: int = 0) -> DataLoader:
    """So many batches of four samples with two features, labelled by the sign of their sum."""
    inputs = torch.randn(4 * batches, 2, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), batch_size=4, shuffle=shuffle)


def write_archive(checkpoint: dict[str, Any], file: BinaryIO, metadata: dict[str, Any] | None) -> None:
    """A checkpoint file as ours are."""
    for piece in Snapshot(checkpoint, metadata).pieces():
        file.write(piece)


def seal(path: Path) -> None:
    """Give an archive that ``zipfile`` has written the seal of ours."""
    with zipfile.ZipFile(path, "a") as opened:
        opened.comment = bytes(archive.SEAL_SIZE)
    with open(path, "r+b") as file:
        directory = zip_directory.read(file)
        file.seek(-archive.SEAL_SIZE, os.SEEK_END)
        file.write(archive.seal(zlib.crc32(directory.raw + directory.end)))


def durable_io() -> DurableCheckpointIO:
    """The ``CheckpointIO`` that a trainer of ``lightning`` gets."""
    return combined(DurableCheckpointIO, TorchCheckpointIO)()


class Net(CheckpointingModule):
    """A linear classifier that writes only ``compute_loss``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"save_interval": None, **options})
        self.layer = torch.nn.Linear(2, 2)

    def compute_loss(self, batch: Any, batch_idx: int) -> Any:
        inputs, labels = batch
        return F.cross_entropy(self.layer(inputs), labels)


class PlainNet(L.LightningModule):
    """The same, as a LightningModule of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, labels = batch
        loss = F.cross_entropy(self.layer(inputs), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        inputs, labels = batch
        self.log("val_loss", F.cross_entropy(self.layer(inputs), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class MixedNet(CheckpointingMixin, PlainNet):
    """The plain one, with the mixin in front."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"save_interval": None, **options})


class Scripted(Net):
    """Logs a given series of values as ``score``, one for each validation."""

    def __init__(self, scores: list[float], **options: Any) -> None:
        super().__init__(**{"monitor": "score", **options})
        self.scores = list(scores)
        self.validations = 0

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if not self.trainer.sanity_checking:
            self.log("score", self.scores[self.validations])
            self.validations += 1


def trainer(root: Path, **options: Any) -> L.Trainer:
    """A quiet trainer that writes below ``root``."""
    return L.Trainer(**{**QUIET, "default_root_dir": root, "max_epochs": 1, **options})


def files(directory: Path) -> list[str]:
    """Names of the checkpoint files in a directory, links left out."""
    return sorted(path.name for path in directory.rglob("*.ckpt") if not path.is_symlink())


def links(directory: Path) -> dict[str, str]:
    """Names of the links in a directory, and where they point."""
    return {path.name: os.readlink(path) for path in directory.glob("*.ckpt") if path.is_symlink()}


def load(path: Any) -> dict[str, Any]:
    """A checkpoint, as anybody would load it."""
    return torch.load(path, weights_only=True)
