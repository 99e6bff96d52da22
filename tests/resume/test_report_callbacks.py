"""Callbacks and workers whose state is restored only in part: reported when the file is saved and when resumed."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, ModelPruning, StochasticWeightAveraging
from nets import Net, loader, trainer
from torch.utils.data import IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from checkpointable import ResumeError
from checkpointable.catalog.info import read_info

INSIDE = {"save_interval": 2, "save_top_k": 0, "save_last_k": -1, "every_n_epochs": 1}
PERSISTENT = "Streamed is read by workers that keep its position: they resume there with other random numbers"


def reports(caplog):
    return [record.message for record in caplog.records if "resumes after" in record.message]


def averaging():
    return StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)


def pruning():
    return ModelPruning("l1_unstructured", amount=0.2, parameters_to_prune=None, use_lottery_ticket_hypothesis=False)


IN_PART = {"StochasticWeightAveraging": averaging, "ModelPruning": pruning}


@pytest.mark.parametrize("name", ["epoch_0_batch_2", "epoch_0_batch_5", "epoch_1_batch_2"])
@pytest.mark.parametrize("kind", IN_PART)
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
@pytest.mark.filterwarnings("ignore:.*Swapping scheduler")
def test_callback_that_is_restored_in_part_is_approximate_and_refused_when_strict(tmp_path, caplog, kind, name):
    trainer(tmp_path, max_epochs=3, callbacks=[IN_PART[kind]()]).fit(Net(dirpath=tmp_path / "a", **INSIDE), loader(5))
    path, says = tmp_path / f"a/{name}.ckpt", f"{kind}: approximate (Lightning restores it only in part)"
    assert read_info(path).exactness == says
    again = trainer(tmp_path, max_epochs=3, callbacks=[IN_PART[kind]()])
    with pytest.raises(ResumeError, match="Resume with strict_resume=False") as caught:
        again.fit(Net(strict_resume=True, dirpath=tmp_path / "b"), loader(5), ckpt_path=path)
    assert says in str(caught.value)
    with caplog.at_level("INFO"):
        again = Net(dirpath=tmp_path / "c")
        trainer(tmp_path, max_epochs=3, callbacks=[IN_PART[kind]()]).fit(again, loader(5), ckpt_path=path)
    assert len(reports(caplog)) == 1
    assert says in reports(caplog)[0]


@pytest.mark.parametrize("step", [2, 4, 6, 8])
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used")
def test_file_of_another_callback_resumes_with_all_batches_that_are_left(tmp_path, caplog, step):
    theirs = ModelCheckpoint(tmp_path / "theirs", filename="{step}", save_top_k=-1, every_n_train_steps=2)
    trainer(tmp_path, max_epochs=3, callbacks=[theirs]).fit(Seeing(dirpath=tmp_path / "a"), loader(4))
    path = tmp_path / f"theirs/step={step}.ckpt"
    assert (
        "saved inside a batch, or an epoch's start or end, by your code or another callback"
        in read_info(path).exactness
    )
    resumed = Seeing(dirpath=tmp_path / "b")
    trainer(tmp_path, max_epochs=3).fit(resumed, loader(4), ckpt_path=path)
    places = [(epoch, batch) for epoch in range(3) for batch in range(4)]
    assert [(epoch, batch) for epoch, batch, _ in resumed.seen] == places[step:]


class Streamed(IterableDataset):
    """Draws random numbers in its worker. It is read again after a resume."""

    def __iter__(self):
        return ((torch.rand(2), number % 2) for number in range(20))


class Kept(IterableDataset):
    """Draws random numbers in its worker, and keeps its position, so that nothing is read again."""

    def __init__(self):
        self.at = 0

    def __iter__(self):
        while self.at < 20:
            self.at += 1
            yield torch.rand(2), self.at % 2
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Seeing(Net):
    """Records the batches it trains on."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def compute_loss(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch[0].tolist()))
        return super().compute_loss(batch, batch_idx)


def stateful(data, *, persistent):
    return StatefulDataLoader(data(), batch_size=4, num_workers=1, persistent_workers=persistent)


def stream(net, where, *, persistent=False, ckpt_path=None, data=Streamed):
    """Train two epochs of five batches that a worker reads."""
    trainer(where, max_epochs=2).fit(net, stateful(data, persistent=persistent), ckpt_path=ckpt_path)
    return net


TORCHDATA = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 on this torch


@TORCHDATA
def test_stateful_loader_of_persistent_workers_is_approximate_inside_an_epoch(tmp_path, caplog):
    stream(Seeing(dirpath=tmp_path / "a", **INSIDE), tmp_path, persistent=True)
    path, says = tmp_path / "a/epoch_1_batch_2.ckpt", f"train loader: approximate ({PERSISTENT})"
    assert read_info(path).exactness == says
    with pytest.raises(ResumeError) as caught:
        stream(Seeing(strict_resume=True, dirpath=tmp_path / "b"), tmp_path, persistent=True, ckpt_path=path)
    assert says in str(caught.value)
    with caplog.at_level("INFO"):
        stream(Seeing(dirpath=tmp_path / "c"), tmp_path, persistent=True, ckpt_path=path)
    assert reports(caplog)[0].endswith(f": {says}")


@TORCHDATA
@pytest.mark.parametrize("name", ["epoch_0_batch_2", "epoch_0_batch_5", "epoch_1_batch_4"])
def test_stateful_loader_of_workers_that_end_with_their_pass_goes_on_and_is_approximate(tmp_path, caplog, name):
    torch.manual_seed(1)
    straight = stream(Seeing(dirpath=tmp_path / "a", **INSIDE), tmp_path)
    path = tmp_path / f"a/{name}.ckpt"
    says = "train loader: approximate (Streamed has no index"
    assert read_info(path).exactness.startswith(says)
    torch.manual_seed(100)
    with caplog.at_level("INFO"):
        resumed = Seeing(dirpath=tmp_path / "b")
        stream(resumed, tmp_path, ckpt_path=path)
    assert says in reports(caplog)[0]
    assert resumed.seen == straight.seen[-len(resumed.seen) :]
    assert len(resumed.seen) == {"epoch_0_batch_2": 8, "epoch_0_batch_5": 5, "epoch_1_batch_4": 1}[name]


@TORCHDATA
def test_stateful_loader_whose_data_set_keeps_its_position_in_a_worker_is_reported_as_exact_only_where_it_is(tmp_path):
    straight = stream(Seeing(dirpath=tmp_path / "a", **INSIDE), tmp_path, data=Kept)
    path = tmp_path / "a/epoch_0_batch_2.ckpt"
    resumed = stream(Seeing(dirpath=tmp_path / "b"), tmp_path, data=Kept, ckpt_path=path)
    assert len(resumed.seen) == 8
    assert resumed.seen == straight.seen[2:] or read_info(path).exactness != "exact"
