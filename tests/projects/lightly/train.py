"""lightly's example examples/pytorch_lightning/simclr.py, on images of scikit-learn's digits."""

import numpy as np
import pytorch_lightning as pl
import torch
import torchvision
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from sklearn.datasets import load_digits

from checkpointable import Checkpointing


class SimCLR(pl.LightningModule):
    def __init__(self):
        super().__init__()
        resnet = torchvision.models.resnet18()
        self.backbone = torch.nn.Sequential(*list(resnet.children())[:-1])
        self.projection_head = SimCLRProjectionHead(512, 512, 64)
        self.criterion = NTXentLoss()

    def forward(self, x):
        return self.projection_head(self.backbone(x).flatten(start_dim=1))

    def training_step(self, batch, batch_idx):
        x0, x1 = batch[0]
        loss = self.criterion(self.forward(x0), self.forward(x1))
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.06)


class Digits(torch.utils.data.Dataset):
    def __init__(self, transform):
        images = (load_digits().images * 15).astype(np.uint8)
        self.images = [Image.fromarray(image).convert("RGB").resize((32, 32)) for image in images[:160]]
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(self.images[index]), 0


if __name__ == "__main__":
    pl.seed_everything(workers=True)
    transform = SimCLRTransform(input_size=32, gaussian_blur=0.0)
    dataloader = torch.utils.data.DataLoader(
        Digits(transform), batch_size=16, shuffle=True, drop_last=True, num_workers=2
    )
    trainer = pl.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[Checkpointing(monitor="train_loss", save_interval=2, dirpath="saved", resume="auto")],
    )  # fmt: skip
    trainer.fit(model=SimCLR(), train_dataloaders=dataloader)
