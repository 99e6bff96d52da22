"""A data set that keeps its state from epoch to epoch, in torchdata's loader, resumed from every file."""

from __future__ import annotations

import pytest
import torch
from nets import Net, files, trainer
from torch.utils.data import IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from checkpointable.catalog.info import read_info

pytestmark = [
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata 0.11 on this torch
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),  # and it is right
]


class Endless(IterableDataset):
    """Continues in each epoch where the previous one ended."""

    def __init__(self):
        self.at = 0

    def __iter__(self):
        while True:
            self.at += 1
            yield torch.full((2,), float(self.at))

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Passes(IterableDataset):
    """Counts its passes, and yields other numbers in each."""

    def __init__(self):
        self.passes = self.at = 0

    def __iter__(self):
        if self.at == 0:
            self.passes += 1
        while self.at < 8:
            self.at += 1
            yield torch.full((2,), 100.0 * self.passes + self.at)
        self.at = 0

    def state_dict(self):
        return {"passes": self.passes, "at": self.at}

    def load_state_dict(self, state):
        self.passes, self.at = state["passes"], state["at"]


class Seeing(Net):
    """Records the batches it trains on."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def compute_loss(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch[:, 0].tolist()))
        return self.layer(batch).square().mean()


def fit(where, data, workers, limit, ckpt_path=None):
    net = Seeing(dirpath=where, save_interval=1, save_last_k=-1, every_n_epochs=1)
    loader = StatefulDataLoader(data(), batch_size=2, num_workers=workers, persistent_workers=workers > 0)
    trainer(where, max_epochs=3, limit_train_batches=limit).fit(net, loader, ckpt_path=ckpt_path)
    return net


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("data", "limit"), [(Endless, 3), (Passes, 1.0), (Passes, 3)])
def test_resume_restores_the_state_that_a_data_set_keeps_from_epoch_to_epoch(tmp_path, data, limit, workers):
    straight = fit(tmp_path / "straight", data, workers, limit)
    assert straight.seen[-1][2] != straight.seen[len(straight.seen) // 3 - 1][2], "the epochs differ"
    for name in files(tmp_path / "straight"):
        path = tmp_path / "straight" / name
        resumed = fit(tmp_path / name, data, workers, limit, ckpt_path=path)
        assert resumed.seen == straight.seen[read_info(path).batches :], f"from {name}"
