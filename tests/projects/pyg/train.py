"""PyTorch Geometric's example examples/pytorch_lightning/gin.py, on graphs that its FakeDataset makes."""

import random

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch.nn import BatchNorm1d, Dropout, Linear, ModuleList, ReLU, Sequential
from torch_geometric.data.lightning import LightningDataset
from torch_geometric.datasets import FakeDataset
from torch_geometric.nn import GINConv, global_add_pool
from torchmetrics import Accuracy

from checkpointable import Checkpointing


class Model(pl.LightningModule):
    def __init__(self, in_channels, out_channels, hidden_channels=64, num_layers=3, dropout=0.5):
        super().__init__()
        self.save_hyperparameters()
        self.convs = ModuleList()
        for _ in range(num_layers):
            mlp = Sequential(
                Linear(in_channels, 2 * hidden_channels),
                BatchNorm1d(2 * hidden_channels),
                ReLU(inplace=True),
                Linear(2 * hidden_channels, hidden_channels),
                BatchNorm1d(hidden_channels),
                ReLU(inplace=True),
            )
            self.convs.append(GINConv(mlp, train_eps=True))
            in_channels = hidden_channels
        self.classifier = Sequential(
            Linear(hidden_channels, hidden_channels),
            BatchNorm1d(hidden_channels),
            ReLU(inplace=True),
            Dropout(p=dropout),
            Linear(hidden_channels, out_channels),
        )
        self.train_acc = Accuracy(task="multiclass", num_classes=out_channels)
        self.val_acc = Accuracy(task="multiclass", num_classes=out_channels)

    def forward(self, x, edge_index, batch):
        for conv in self.convs:
            x = conv(x, edge_index)
        return self.classifier(global_add_pool(x, batch))

    def training_step(self, data, batch_idx):
        y_hat = self(data.x, data.edge_index, data.batch)
        loss = F.cross_entropy(y_hat, data.y)
        self.train_acc(y_hat.softmax(dim=-1), data.y)
        self.log("train_acc", self.train_acc, on_step=False, on_epoch=True, batch_size=data.y.size(0))
        return loss

    def validation_step(self, data, batch_idx):
        y_hat = self(data.x, data.edge_index, data.batch)
        self.val_acc(y_hat.softmax(dim=-1), data.y)
        self.log("val_acc", self.val_acc, on_step=False, on_epoch=True, batch_size=data.y.size(0))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def main():
    random.seed(0)  # the graphs that FakeDataset makes
    torch.manual_seed(0)
    dataset = FakeDataset(num_graphs=336, avg_num_nodes=12, avg_degree=3, num_channels=8, num_classes=3)
    pl.seed_everything()
    datamodule = LightningDataset(dataset[80:], dataset[:80], batch_size=32)
    model = Model(dataset.num_node_features, dataset.num_classes)
    trainer = pl.Trainer(
        max_epochs=3,
        log_every_n_steps=5,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[Checkpointing(monitor="val_acc", mode="max", save_interval=2, dirpath="saved", resume="auto")],
    )
    trainer.fit(model, datamodule)


if __name__ == "__main__":
    main()
