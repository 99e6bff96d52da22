"""The Lightning example of torchmetrics' documentation (pages/lightning), on scikit-learn's digits."""

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from checkpointable import CheckpointingMixin


class MyModel(CheckpointingMixin, L.LightningModule):
    def __init__(self, num_classes):
        super().__init__(save_interval=2, dirpath="saved", resume="auto")
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, num_classes))
        metrics = MetricCollection([MulticlassAccuracy(num_classes), MulticlassF1Score(num_classes)])
        self.train_metrics = metrics.clone(prefix="train_")
        self.valid_metrics = metrics.clone(prefix="val_")

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        loss = F.cross_entropy(logits, y)
        self.log("train_loss", loss)
        self.log_dict(self.train_metrics(logits, y))
        return loss

    def on_train_epoch_end(self):
        self.train_metrics.reset()

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        self.log("val_loss", F.cross_entropy(logits, y))
        self.valid_metrics.update(logits, y)

    def on_validation_epoch_end(self):
        self.log_dict(self.valid_metrics.compute())
        self.valid_metrics.reset()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


L.seed_everything()
images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
images = images.float() / 16
train_loader = DataLoader(TensorDataset(images[:512], labels[:512]), batch_size=64, shuffle=True)
val_loader = DataLoader(TensorDataset(images[512:704], labels[512:704]), batch_size=64)
trainer = L.Trainer(max_epochs=3, accelerator="cpu", enable_progress_bar=False, logger=False)
trainer.fit(MyModel(10), train_loader, val_loader)
