"""MONAI's tutorial spleen_segmentation_3d_lightning (U-Net, Dice, random crops), on volumes that MONAI makes."""

import lightning as L
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, create_test_image_3d, decollate_batch, list_data_collate
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss
from monai.metrics import DiceMetric
from monai.networks.layers import Norm
from monai.networks.nets import UNet
from monai.transforms import (
    AsDiscrete,
    Compose,
    EnsureType,
    EnsureTyped,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    ScaleIntensityd,
)

from checkpointable import Checkpointing


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self._model = UNet(
            spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8, 16), strides=(2, 2), norm=Norm.BATCH
        )
        self.loss_function = DiceLoss(to_onehot_y=True, softmax=True)
        self.post_pred = Compose([EnsureType("tensor", device="cpu"), AsDiscrete(argmax=True, to_onehot=2)])
        self.post_label = Compose([EnsureType("tensor", device="cpu"), AsDiscrete(to_onehot=2)])
        self.dice_metric = DiceMetric(include_background=False, reduction="mean", get_not_nans=False)

    def forward(self, x):
        return self._model(x)

    def prepare_data(self):
        choose = np.random.RandomState(0)
        size = {"rad_min": 4, "rad_max": 8, "num_seg_classes": 1}
        volumes = [create_test_image_3d(32, 32, 32, **size, random_state=choose) for _ in range(24)]
        files = [{"image": image[None], "label": label[None]} for image, label in volumes]
        both = ["image", "label"]
        fixed = [EnsureTyped(both), ScaleIntensityd("image")]
        crops = RandCropByPosNegLabeld(both, label_key="label", spatial_size=(16, 16, 16), pos=1, neg=1, num_samples=2)
        augmentation = [crops, RandFlipd(both, prob=0.5, spatial_axis=0), RandGaussianNoised("image", prob=0.5)]
        self.train_ds = CacheDataset(files[:20], Compose([*fixed, *augmentation]), progress=False)
        self.val_ds = CacheDataset(files[20:], Compose(fixed), progress=False)

    def train_dataloader(self):
        return DataLoader(self.train_ds, batch_size=2, shuffle=True, num_workers=0, collate_fn=list_data_collate)

    def val_dataloader(self):
        return DataLoader(self.val_ds, batch_size=1, num_workers=0)

    def configure_optimizers(self):
        return torch.optim.Adam(self._model.parameters(), 1e-3)

    def training_step(self, batch, batch_idx):
        loss = self.loss_function(self.forward(batch["image"]), batch["label"])
        self.log("train_loss", loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        outputs = sliding_window_inference(batch["image"], (16, 16, 16), 4, self.forward)
        self.log("val_loss", self.loss_function(outputs, batch["label"]), batch_size=1)
        outputs = [self.post_pred(i) for i in decollate_batch(outputs)]
        labels = [self.post_label(i) for i in decollate_batch(batch["label"])]
        self.dice_metric(y_pred=outputs, y=labels)

    def on_validation_epoch_end(self):
        self.log("val_dice", self.dice_metric.aggregate().item())
        self.dice_metric.reset()


if __name__ == "__main__":
    L.seed_everything()
    trainer = L.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[Checkpointing(save_interval=2, dirpath="saved", resume="auto")],
    )  # fmt: skip
    trainer.fit(Net())
