"""Checkpoints in shards, which Lightning saves with ``ModelParallelStrategy`` and reads by itself."""

from __future__ import annotations

import os
import shutil

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from checkpointable import CheckpointableWarning, Checkpointing, ResumeError, latest

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _group():
    before = dict(os.environ)
    yield
    torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


class Sharded(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
        self.net[0].weight.requires_grad = False
        self.losses = []

    def configure_model(self):
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch, batch_idx):
        loss = self.net(batch).square().mean()
        self.losses.append((self.current_epoch, batch_idx, float(loss).hex()))
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam((it for it in self.net.parameters() if it.requires_grad), lr=0.01)


def fit(where, seed, *, ckpt_path=None, **options):
    L.seed_everything(seed, verbose=False)
    net = Sharded()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        strategy=ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1),
        max_epochs=2,
        callbacks=[
            Checkpointing(dirpath=where / "ours", **options),
            ModelCheckpoint(dirpath=where, filename="{step}", every_n_train_steps=3, save_top_k=-1),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=where,
    )
    data = torch.randn(20, 3, generator=torch.Generator().manual_seed(5))
    trainer.fit(net, DataLoader(data, batch_size=4, shuffle=True), ckpt_path=ckpt_path)
    return net


def test_resume_from_shards_by_their_path_is_the_uninterrupted_run(tmp_path, caplog):
    whole = fit(tmp_path, 1)
    path = tmp_path / "step=3.ckpt"
    assert {it.name for it in path.iterdir()} == {".metadata", "__0_0.distcp", "meta.pt"}
    with caplog.at_level("INFO"):
        resumed = fit(tmp_path, 2, ckpt_path=path)
    assert resumed.losses == whole.losses[3:]
    assert "weights, optimizers: approximate (read by the strategy, which does not verify them)" in caplog.text
    saved = torch.load(path / "meta.pt", weights_only=True)["checkpointable"]
    assert saved["metadata"]["weights"] == "current"


def test_what_the_strategy_has_read_from_shards_cannot_come_from_the_script(tmp_path):
    fit(tmp_path, 1)
    with pytest.raises(ResumeError, match=r"from_script=\['learning_rate'\]: it is in shards"):
        fit(tmp_path, 2, ckpt_path=tmp_path / "step=3.ckpt", from_script="learning_rate")


def test_shards_hold_the_frozen_part_too(tmp_path):
    fit(tmp_path, 1, save_trainable_only=True)
    fit(tmp_path, 2, ckpt_path=tmp_path / "step=3.ckpt", save_trainable_only=True)


def test_latest_names_the_shards_that_it_passes_over(tmp_path):
    fit(tmp_path, 1)
    shutil.rmtree(tmp_path / "ours")  # which are newer
    with pytest.warns(CheckpointableWarning, match=r"passed over, .* in shards are intact: .*step=9\.ckpt, .*step=6"):
        assert latest(tmp_path) is None
