"""A run that resumes makes its loaders as in the epoch in which they were made before."""

from __future__ import annotations

import contextlib

import pytest
import torch
from nets import Net, loader, trainer

from checkpointable import Checkpoints, ResumeError
from checkpointable.lightning_internals import sources


class Curriculum(Net):
    """Makes other data in each epoch, and records what it trains and validates on."""

    def __init__(self, **options):
        super().__init__(save_interval=2, save_last_k=-1, strict_resume=True, **options)
        self.seen = []

    def train_dataloader(self):
        return loader(4, shuffle=True, seed=self.current_epoch)

    def val_dataloader(self):
        return loader(1, seed=10 + self.trainer.current_epoch)

    def compute_loss(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            self.seen.append(batch[0].tolist())
        return super().compute_loss(batch, batch_idx)


def fit(where, *, seed, every, ckpt_path=None):
    torch.manual_seed(seed)
    net = Curriculum(dirpath=where)
    own = trainer(where, max_epochs=4, reload_dataloaders_every_n_epochs=every)
    own.fit(net, ckpt_path=ckpt_path)
    return net.seen, [weight.tolist() for weight in net.parameters()]


@pytest.mark.parametrize("every", [0, 2])
def test_loaders_that_depend_on_the_epoch_are_made_again_as_they_were(tmp_path, every):
    seen, ended = fit(tmp_path / "straight", seed=1, every=every)
    inside = [info for info in Checkpoints(tmp_path / "straight") if info.batch < 4 and info.epoch in (1, 3)]
    for info in inside:
        resumed, ended_too = fit(tmp_path / info.path[-20:], seed=100, every=every, ckpt_path=info.path)
        assert (resumed, ended_too) == (seen[-len(resumed) :], ended)
    assert len(inside) == 2


def test_loaders_that_depend_on_the_epoch_differ_where_they_are_made_in_another(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr(sources, "_in_epoch", lambda trainer, epoch: contextlib.nullcontext())
    fit(tmp_path / "straight", seed=1, every=2)
    path = next(info.path for info in Checkpoints(tmp_path / "straight") if (info.epoch, info.batch) == (3, 2))
    with pytest.raises(ResumeError, match=r"dataset.tensors differs from that when saved"):
        fit(tmp_path / "resumed", seed=100, every=2, ckpt_path=path)
