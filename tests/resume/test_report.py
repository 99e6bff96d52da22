"""What a resumed run reports, and what strict_resume refuses."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from nets import MixedNet, Net, PlainNet, load, loader, trainer
from torch.utils.data import DataLoader, IterableDataset

from checkpointable import CheckpointableWarning, ResumeError
from checkpointable.catalog.info import read_info

MIDDLE = {"save_interval": 2, "save_top_k": 0, "save_last": False}


class Streamed(IterableDataset):
    """Has no index."""

    def __iter__(self):
        return iter(loader(5).dataset)


def reports(caplog):
    return [record.message for record in caplog.records if "resumes after" in record.message]


def test_resume_logs_its_position_and_that_it_is_exact(tmp_path, caplog):
    net = Net(dirpath=tmp_path, **MIDDLE)
    trainer(tmp_path).fit(net, loader(5))
    with caplog.at_level("INFO"):
        trainer(tmp_path).fit(Net(strict_resume=True), loader(5), ckpt_path=net.last_model_path)
    path = tmp_path / "epoch_0_batch_4.ckpt"
    assert reports(caplog) == [f"checkpointable: resumes after epoch 0, batch 4 of 5, step 4, from {path}: exact"]
    assert read_info(path).exactness == "exact"


def other_length():
    return loader(7), "train loader: approximate (5 batches when saved, 7 now)"


def other_batch_size():
    return DataLoader(loader(5).dataset, batch_size=2), "4 samples a batch when saved, 2 now"


@pytest.mark.parametrize("changed", [other_length, other_batch_size])
def test_changed_loader_is_approximate_and_refused_when_strict(tmp_path, caplog, changed):
    net = Net(dirpath=tmp_path, **MIDDLE)
    trainer(tmp_path).fit(net, loader(5))
    data, says = changed()
    with caplog.at_level("INFO"):
        trainer(tmp_path).fit(Net(dirpath=tmp_path / "b"), data, ckpt_path=net.last_model_path)
    assert says in reports(caplog)[0]
    with pytest.raises(ResumeError) as caught:
        trainer(tmp_path).fit(Net(strict_resume=True), data, ckpt_path=net.last_model_path)
    assert says in str(caught.value)
    assert "Resume with strict_resume=False to go on at the same batch number" in str(caught.value)


def test_iterable_data_set_is_approximate(tmp_path):
    net = Net(dirpath=tmp_path, **MIDDLE)
    trainer(tmp_path).fit(net, DataLoader(Streamed(), batch_size=4))
    says = r"Streamed has no index: its batches are read again and dropped"
    assert says in read_info(net.last_model_path).exactness
    again = DataLoader(Streamed(), batch_size=4)
    with pytest.raises(ResumeError, match=says):
        trainer(tmp_path).fit(Net(strict_resume=True), again, ckpt_path=net.last_model_path)


class Passing(DataLoader):
    """Passes on the batches of a ``DataLoader``, whose iterator is made with the first of them."""

    def __iter__(self):
        yield from super().__iter__()


class Seeing(Net):
    """Records the batches it trains on."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def compute_loss(self, batch, batch_idx):
        self.seen.append(batch[0].tolist())
        return super().compute_loss(batch, batch_idx)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_whose_iter_is_a_generator_goes_on_after_its_batches_and_is_approximate(tmp_path, workers):
    def fit(net, **options):
        data = Passing(loader(5).dataset, batch_size=4, shuffle=True, num_workers=workers)
        trainer(tmp_path, max_epochs=2).fit(net, data, **options)
        return net

    straight = fit(Seeing(dirpath=tmp_path / "a", save_interval=2, save_last_k=-1, save_last=False))
    path = tmp_path / "a" / "epoch_1_batch_2.ckpt"
    assert fit(Seeing(dirpath=tmp_path / "b"), ckpt_path=path).seen == straight.seen[7:]
    says = "Passing has an __iter__ of its own: its batches are read again and dropped"
    assert says in read_info(path).exactness
    with pytest.raises(ResumeError, match=says):
        fit(Net(strict_resume=True), ckpt_path=path)


def test_other_number_of_loaders_is_lost(tmp_path):
    class Several(Net):
        def compute_loss(self, batch, batch_idx):
            parts = batch if isinstance(batch[0], (list, tuple)) else [batch]
            return sum(torch.nn.functional.cross_entropy(self.layer(x), y) for x, y in parts)

    net = Several(dirpath=tmp_path, **MIDDLE)
    trainer(tmp_path).fit(net, loader(5))
    with pytest.raises(ResumeError, match=r"position in the data: lost .1 train loaders when saved, 2 now"):
        trainer(tmp_path).fit(Several(strict_resume=True), [loader(5), loader(5)], ckpt_path=net.last_model_path)


def test_file_saved_inside_a_batch_is_approximate(tmp_path):
    class Own(Net):
        def training_step(self, batch, batch_idx):
            if batch_idx == 3:
                self.trainer.save_checkpoint(tmp_path / "mine.ckpt")
            return super().training_step(batch, batch_idx)

    trainer(tmp_path).fit(Own(dirpath=tmp_path), loader(5))
    assert "inside a batch" in read_info(tmp_path / "mine.ckpt").exactness
    with pytest.raises(
        ResumeError,
        match=r"everything: approximate .saved inside a batch, or an epoch's start or end, by your",
    ):
        trainer(tmp_path).fit(Net(strict_resume=True), loader(5), ckpt_path=tmp_path / "mine.ckpt")


def test_checkpoint_of_plain_lightning_is_refused_when_strict(tmp_path):
    plain = trainer(tmp_path)
    plain.fit(PlainNet(), loader(3), loader(1))
    path = plain.checkpoint_callback.best_model_path
    with pytest.raises(ResumeError, match=r"not written by checkpointable.*set strict_resume=False"):
        trainer(tmp_path).fit(MixedNet(strict_resume=True), loader(3), loader(1), ckpt_path=path)
    with pytest.warns(CheckpointableWarning, match="randomness, and the position in the data"):
        trainer(tmp_path, max_epochs=2).fit(MixedNet(), loader(3), loader(1), ckpt_path=path)


def test_stateful_loader_whose_state_is_missing_is_approximate(tmp_path):
    net = Net(dirpath=tmp_path, **MIDDLE)
    trainer(tmp_path).fit(net, loader(5))
    stateful = StatefulLoader(list(loader(5)))
    with pytest.raises(ResumeError, match="it keeps its own position, and the file has none for it"):
        trainer(tmp_path).fit(Net(strict_resume=True), stateful, ckpt_path=net.last_model_path)


class StatefulLoader:
    """Keeps its own position."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)

    def state_dict(self):
        return {"at": 0}

    def load_state_dict(self, state):
        pass


def test_resume_of_a_finished_run_is_logged(tmp_path, caplog):
    net = Net(dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(3))
    with caplog.at_level("INFO"):
        trainer(tmp_path).fit(Net(), loader(3), ckpt_path=net.last_model_path)
    assert any("this run ended after epoch 0, batch 3" in record.message for record in caplog.records)


def test_other_number_of_ranks_is_approximate(tmp_path):
    net = Net(dirpath=tmp_path, **MIDDLE)
    trainer(tmp_path).fit(net, loader(5))
    saved = load(net.last_model_path)
    saved["checkpointable"]["ranks"] *= 2
    torch.save(saved, tmp_path / "two.ckpt")
    with pytest.raises(ResumeError, match=r"which rank sees which sample: approximate .2 ranks when saved, 1 now"):
        trainer(tmp_path).fit(Net(strict_resume=True), loader(5), ckpt_path=tmp_path / "two.ckpt")


def test_value_that_weights_only_loading_refuses_is_named_when_it_is_saved(tmp_path):
    class Unsafe(Net):
        def on_save_checkpoint(self, checkpoint):
            super().on_save_checkpoint(checkpoint)
            checkpoint["mine"] = {"where": [tmp_path]}

    net = Unsafe(dirpath=tmp_path, **MIDDLE)
    says = r"checkpoint\['mine'\]\['where'\]\[0\] is a .*Path.*Save a plain value"
    with pytest.warns(CheckpointableWarning, match=says) as told:
        trainer(tmp_path).fit(net, loader(5))
    assert len([w for w in told if w.category is CheckpointableWarning]) == 1, "once, not at every save"


def test_exception_while_a_batch_is_prepared_keeps_the_position_in_the_data_and_makes_the_randomness_approximate(
    tmp_path,
):
    class Stopping(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 3:
                raise KeyError("stop")

    net = Net(dirpath=tmp_path, **MIDDLE)
    with pytest.raises(KeyError):
        trainer(tmp_path, callbacks=[Stopping()]).fit(net, loader(5))
    info = read_info(net.last_model_path)
    assert (info.kind, info.batch) == ("exception", 3)
    assert info.exactness.startswith("randomness: approximate (an exception was raised")
    seen = []

    class Watching(Net):
        def compute_loss(self, batch, batch_idx):
            seen.append((batch_idx, batch[0].tolist()))
            return super().compute_loss(batch, batch_idx)

    trainer(tmp_path).fit(Watching(), loader(5), ckpt_path=net.last_model_path)
    assert seen == [(number, batch[0].tolist()) for number, batch in enumerate(loader(5)) if number >= 3]
