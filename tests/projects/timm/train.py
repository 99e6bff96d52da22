"""timm as Lightning's documentation uses it: create_model, Mixup, RandAugment and timm's scheduler, on the digits."""

import lightning as L
import numpy as np
import timm
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import Mixup, create_transform
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch.utils.data import DataLoader, Dataset

from checkpointable import Checkpointing


class Digits(Dataset):
    def __init__(self, rows, transform):
        images, labels = load_digits(return_X_y=True)
        images = (images.reshape(-1, 8, 8) * 15).astype(np.uint8)
        self.images = [Image.fromarray(image).convert("RGB").resize((32, 32)) for image in images[rows]]
        self.labels = labels[rows]
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(self.images[index]), int(self.labels[index])


class LitTimm(L.LightningModule):
    def __init__(self, name, num_classes):
        super().__init__()
        self.save_hyperparameters()
        self.model = timm.create_model(name, num_classes=num_classes, drop_rate=0.1, drop_path_rate=0.1)
        self.mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=num_classes)

    def training_step(self, batch, batch_idx):
        images, labels = self.mixup(*batch)
        loss = SoftTargetCrossEntropy()(self.model(images), labels)
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_loss", LabelSmoothingCrossEntropy()(self.model(images), labels))

    def configure_optimizers(self):
        optimizer = create_optimizer_v2(self.model, opt="lamb", lr=0.005, weight_decay=0.02)
        scheduler = CosineLRScheduler(optimizer, t_initial=5, warmup_t=1, noise_range_t=(0, 5), noise_pct=0.2)
        return [optimizer], [{"scheduler": scheduler, "interval": "epoch"}]

    def lr_scheduler_step(self, scheduler, metric):
        scheduler.step(epoch=self.current_epoch)


if __name__ == "__main__":
    L.seed_everything(workers=True)
    augmentation = create_transform(32, is_training=True, auto_augment="rand-m9-mstd0.5", re_prob=0.25, hflip=0.0)
    train_loader = DataLoader(Digits(slice(0, 320), augmentation), batch_size=32, shuffle=True, num_workers=2)
    val_loader = DataLoader(Digits(slice(320, 480), create_transform(32)), batch_size=32)
    trainer = L.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[Checkpointing(save_interval=2, dirpath="saved", resume="auto")],
    )  # fmt: skip
    trainer.fit(LitTimm("test_resnet", num_classes=10), train_loader, val_loader)
