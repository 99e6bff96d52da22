"""Loaders of every shape resume exactly, or are not said to: what a resumed run trains, and what its line says."""

from __future__ import annotations

import queue
import warnings

import pytest
import shapes
import torch
from nets import Net, trainer

from checkpointable import CheckpointableWarning
from checkpointable.lightning_internals import combined_loader
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume import loader_verdict, restorer
from checkpointable.resume.loader_position import LoaderPosition
from checkpointable.resume.own_state import OwnState

pytestmark = [
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata 0.11 on this torch
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
]


class Seeing(Net):
    """Records the batches it trains on."""

    def __init__(self, **options):
        super().__init__(monitor=None, **options)
        self.seen = []

    def compute_loss(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch[:, 0].tolist()))
        return self.layer(batch).square().mean()


def fit(where, data, *, ckpt_path=None, **options):
    torch.manual_seed(1 if ckpt_path is None else 100)
    net = Seeing(dirpath=where, **{"save_interval": 2, "save_last_k": -1, "every_n_epochs": 1, **options})
    trainer(where, max_epochs=3).fit(net, data, ckpt_path=ckpt_path)
    return net


def resumed_from(straight, path, make, where, caplog):
    """What is wrong with a resume from this file, and whether it is called exact."""
    caplog.clear()
    with caplog.at_level("INFO"):
        seen = fit(where, make(), ckpt_path=path, save_interval=None, every_n_epochs=None).seen
    line = next(record.message for record in caplog.records if "resumes after" in record.message)
    is_exact = line.endswith(": exact")
    expected = straight.seen[len(straight.seen) - len(seen) :]
    return is_exact and (seen != expected or not seen or seen[0][:2] not in ((1, 0), (1, 2))), is_exact


def lies(make, where, caplog):
    """The files from which a resume is called exact and is not, and those from which one is called exact."""
    straight = fit(where / "a", make())
    last = max(batch for epoch, batch, _ in straight.seen if epoch == 0) + 1
    paths = {"inside": where / "a/epoch_1_batch_2.ckpt", "epoch": where / f"a/epoch_0_batch_{last}.ckpt"}
    found = {at: resumed_from(straight, path, make, where / at, caplog) for at, path in paths.items()}
    return [at for at, (is_lie, _) in found.items() if is_lie], [at for at, (_, is_exact) in found.items() if is_exact]


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_loader_of_each_shape_resumes_exactly_where_it_is_said_to(tmp_path, caplog, shape):
    make, inside, epoch = shapes.SHAPES[shape]
    lying, exact = lies(make, tmp_path, caplog)
    assert lying == []
    assert exact == [at for at, can in (("inside", inside), ("epoch", epoch)) if can]


@pytest.mark.parametrize("shape", ["endless", "sampler with an iterator", "iterator kept over epochs"])
def test_loader_that_is_called_exact_without_evidence_is_found_lying(tmp_path, monkeypatch, caplog, shape):
    monkeypatch.setattr(loader_verdict, "_verdict", lambda name, *_: Verdict(name, Level.EXACT, "no reason"))
    monkeypatch.setattr(LoaderPosition, "_in_step", lambda position: True)
    make = shapes.SHAPES[shape][0]
    if shape == "iterator kept over epochs":
        make = shapes.of(shapes.MultiEpochs, shuffle=True, num_workers=1)
    assert lies(make, tmp_path, caplog)[0] != []


@pytest.mark.parametrize("shape", ["own state, told while reading", "torchdata, state is a start"])
def test_own_state_of_a_loader_is_used_from_every_file(tmp_path, shape):
    make = shapes.SHAPES[shape][0]
    straight = fit(tmp_path / "a", make()).seen
    for at in ("0_batch_2", "0_batch_6", "1_batch_4", "1_batch_6"):
        resumed = fit(tmp_path / at, make(), ckpt_path=tmp_path / f"a/epoch_{at}.ckpt").seen
        assert resumed == straight[6 * int(at[0]) + int(at[-1]) :], at


@pytest.mark.parametrize("at", ["0_batch_2", "0_batch_6", "1_batch_4"])
def test_pass_that_is_shorter_than_before_is_a_warning(tmp_path, monkeypatch, at):
    make = shapes.SHAPES["torchdata, state is a start"][0]
    fit(tmp_path / "a", make())
    monkeypatch.setattr(OwnState, "start_pass", lambda own: None)  # each pass starts at the state that was loaded
    with pytest.warns(CheckpointableWarning, match="resume from a file that was saved at the end of an epoch"):
        fit(tmp_path / "b", make(), ckpt_path=tmp_path / f"a/epoch_{at}.ckpt")


def test_queue_is_not_read_forward_at_the_end_of_an_epoch(tmp_path):
    straight = fit(tmp_path / "a", torch.utils.data.DataLoader(shapes.FromQueue(), 2)).seen
    path, rest = tmp_path / "a/epoch_0_batch_6.ckpt", torch.utils.data.DataLoader(shapes.FromQueue(first=12), 2)
    assert fit(tmp_path / "b", rest, ckpt_path=path).seen == straight[6:]


def test_queue_that_is_read_for_a_pass_that_is_begun_again_loses_batches(tmp_path, monkeypatch):
    fit(tmp_path / "a", torch.utils.data.DataLoader(shapes.FromQueue(), 2))
    monkeypatch.setattr(restorer.Restorer, "_is_over", False)
    path, rest = tmp_path / "a/epoch_0_batch_6.ckpt", torch.utils.data.DataLoader(shapes.FromQueue(first=12), 2)
    with pytest.raises(queue.Empty):
        fit(tmp_path / "b", rest, ckpt_path=path)


class Counting:
    """Lightning's own example of a loader with a state."""

    def __init__(self, start=0):
        self.index = start

    def __len__(self):
        return 10

    def __iter__(self):
        for number in range(self.index, len(self)):
            self.index = number
            yield torch.full((1, 2), float(number))


class Remembering(Counting):
    def state_dict(self):
        return {"index": self.index}

    def load_state_dict(self, state):
        self.index = state["index"] + 1


@pytest.mark.parametrize("kind", [Counting, Remembering])
def test_file_that_the_user_saves_after_max_steps_resumes_loaders_where_they_were(tmp_path, kind):
    first = trainer(tmp_path, max_epochs=-1, max_steps=2)
    first.fit(Seeing(dirpath=tmp_path / "a"), kind())
    first.save_checkpoint(tmp_path / "mine.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        net = Seeing(dirpath=tmp_path / "b")
        trainer(tmp_path, max_epochs=-1, max_steps=4).fit(net, kind(), ckpt_path=tmp_path / "mine.ckpt")
    assert [int(batch[0]) for _, _, batch in net.seen] == [2, 3]


def test_lightnings_part_of_a_file_leaves_out_a_state_that_is_not_implemented(tmp_path, monkeypatch):
    fit(tmp_path / "a", shapes.SHAPES["state_dict not written"][0]())
    monkeypatch.delattr(combined_loader._ObservedCombinedLoader, "_state_dicts")
    with pytest.raises(CheckpointableWarning, match="was not saved: NotImplementedError"):
        fit(tmp_path / "b", shapes.SHAPES["state_dict not written"][0]())
