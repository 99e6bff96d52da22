"""Several of torchdata's loaders together, one shorter than the other, resumed from every file."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from nets import Net, files, trainer
from torch.utils.data import IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from checkpointable.catalog.info import read_info

pytestmark = [
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata 0.11 on this torch
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),  # and it is right
    pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`"),  # of a batch where one loader has ended
]


class Samples(IterableDataset):
    """Yields ``count`` numbers, each with a random number."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return (torch.stack([torch.tensor(float(number)), torch.rand(())]) for number in range(self.count))


class Sized(Samples):
    def __len__(self):
        return self.count


class Seeing(Net):
    """Records the batches it trains on."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def compute_loss(self, batch, batch_idx):
        parts = {name: part for name, part in batch.items() if part is not None}
        self.seen.append((self.current_epoch, batch_idx, {name: part.tolist() for name, part in parts.items()}))
        return self.layer(torch.cat(list(parts.values()))).square().mean()


def several(samples, mode):
    return CombinedLoader(
        {"long": StatefulDataLoader(samples(14), batch_size=2), "short": StatefulDataLoader(samples(6), batch_size=2)},
        mode,
    )


def fit(where, loaders, *, ckpt_path=None, save_interval=1, callbacks=()):
    torch.manual_seed(1 if ckpt_path is None else 100)
    net = Seeing(dirpath=where, save_interval=save_interval, save_last_k=-1, every_n_epochs=save_interval)
    trainer(where, max_epochs=2, callbacks=list(callbacks)).fit(net, loaders, ckpt_path=ckpt_path)
    return net


EACH = [pytest.param(4, id="every fourth file"), pytest.param(1, id="every file", marks=pytest.mark.sweep)]


@pytest.mark.parametrize("each", EACH)
@pytest.mark.parametrize("samples", [Sized, Samples], ids=["with_a_length", "without_a_length"])
@pytest.mark.parametrize("mode", ["max_size", "min_size", "max_size_cycle"])
def test_resume_of_several_stateful_loaders_from_any_file_sees_the_batches_of_the_uninterrupted_run(
    tmp_path, samples, mode, each
):
    straight = fit(tmp_path / "straight", several(samples, mode))
    names = files(tmp_path / "straight")
    assert len(names) == len(straight.seen) == (6 if mode == "min_size" else 14)
    for name in names[::each]:
        path = tmp_path / "straight" / name
        resumed = fit(tmp_path / name, several(samples, mode), ckpt_path=path)
        assert resumed.seen == straight.seen[read_info(path).batches :], f"from {name}"
        assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), straight.parameters(), strict=True))


def test_stateful_loader_that_has_ended_stays_at_its_end_until_the_next_epoch(tmp_path):
    straight = fit(tmp_path / "straight", several(Sized, "max_size"))
    path = tmp_path / "straight" / "epoch_0_batch_4.ckpt"
    resumed = fit(tmp_path / "b", several(Sized, "max_size"), ckpt_path=path, save_interval=None)
    assert [sorted(seen) for _, _, seen in resumed.seen] == [["long"]] * 3 + [["long", "short"]] * 3 + [["long"]] * 4
    assert resumed.seen == straight.seen[4:]


class Stopping(L.Callback):
    """Raises after a batch was fetched and before it is trained."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 4:
            raise KeyError("stop")


@pytest.mark.parametrize("samples", [Sized, Samples], ids=["with_a_length", "without_a_length"])
def test_exception_while_a_batch_is_prepared_keeps_the_position_of_stateful_loaders(tmp_path, samples):
    straight = fit(tmp_path / "straight", several(samples, "max_size"))
    with pytest.raises(KeyError):
        fit(tmp_path / "stopped", several(samples, "max_size"), callbacks=[Stopping()])
    path = tmp_path / "stopped" / files(tmp_path / "stopped")[-1]
    resumed = fit(tmp_path / "b", several(samples, "max_size"), ckpt_path=path)
    assert numbers(resumed.seen) == numbers(straight.seen[4:])


def numbers(seen):
    """The batches without their random numbers, which such a file does not restore."""
    return [
        (epoch, batch, {name: [number for number, _ in part] for name, part in parts.items()})
        for epoch, batch, parts in seen
    ]
