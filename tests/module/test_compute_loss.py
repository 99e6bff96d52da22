"""What a user may write as compute_loss, what is logged from it, and what is said when it is wrong."""

from __future__ import annotations

import pytest
import torch
from nets import Net, loader, trainer
from torch.nn import functional as F

from checkpointable import CheckpointingModule, ComputeLossError, MissingComputeLossError, PolicyError


def test_compute_loss_may_take_the_batch_alone(tmp_path):
    class Short(Net):
        def compute_loss(self, batch):
            return F.cross_entropy(self.layer(batch[0]), batch[1])

    own = trainer(tmp_path)
    own.fit(Short(), loader(2), loader(1))
    assert {"train_loss", "train_loss_step", "train_loss_epoch", "val_loss"} <= own.callback_metrics.keys()


def test_mapping_logs_its_other_entries_beside_the_loss(tmp_path):
    class Both(Net):
        def compute_loss(self, batch, batch_idx):
            return {"loss": super().compute_loss(batch, batch_idx), "half": 0.5, "two": torch.tensor([2.0])}

    own = trainer(tmp_path)
    own.fit(Both(), loader(2), loader(1))
    metrics = {name: float(value) for name, value in own.callback_metrics.items()}
    assert (metrics["train_half"], metrics["val_half"], metrics["val_two"]) == (0.5, 0.5, 2.0)
    assert own.test(Both(), loader(2), verbose=False)[0].keys() == {"test_loss", "test_half", "test_two"}


def test_val_loss_is_weighted_by_batch_size(tmp_path):
    class Size(Net):
        def compute_loss(self, batch, batch_idx):
            return self.layer.weight.sum() * 0 + len(batch[0])

    uneven = torch.utils.data.DataLoader(loader(2).dataset, batch_size=5)
    own = trainer(tmp_path, num_sanity_val_steps=0)
    own.fit(Size(), loader(1), uneven)
    assert float(own.callback_metrics["val_loss"]) == pytest.approx((5 * 5 + 3 * 3) / 8)


def test_several_loaders_are_named_as_lightning_names_them_and_judged_together(tmp_path):
    class Size(Net):
        def compute_loss(self, batch, batch_idx):
            return self.layer.weight.sum() * 0 + len(batch[0])

    data = loader(3).dataset
    loaders = [torch.utils.data.DataLoader(data, batch_size=size) for size in (4, 12)]
    net = Size(dirpath=tmp_path)
    own = trainer(tmp_path)
    own.fit(net, loader(1), loaders)
    metrics = {name: float(value) for name, value in own.callback_metrics.items() if name.startswith("val")}
    assert metrics == {"val_loss": 8.0, "val_loss/dataloader_idx_0": 4.0, "val_loss/dataloader_idx_1": 12.0}
    assert net.best_val_loss == 8.0
    tested = own.test(net, loaders, verbose=False)
    assert tested[0]["test_loss/dataloader_idx_0"] == 4.0
    assert tested[1]["test_loss/dataloader_idx_1"] == 12.0


def test_nan_loss_is_shown_as_nan(tmp_path):
    class Broken(Net):
        def compute_loss(self, batch, batch_idx):
            return super().compute_loss(batch, batch_idx) * float("nan")

    own = trainer(tmp_path)
    net = Broken(dirpath=tmp_path)
    own.fit(net, loader(2), loader(1))
    assert own.callback_metrics["val_loss"].isnan()
    assert net.best_val_loss == float("inf")


def test_default_optimizer_takes_what_requires_gradients():
    net = Net(learning_rate=0.25)
    net.layer.bias.requires_grad_(False)
    optimizer = net.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["params"] == [net.layer.weight]
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_module_without_a_validation_loader_gets_no_warning_and_a_plain_one_still_does(tmp_path):
    from nets import PlainNet

    trainer(tmp_path).fit(Net(), loader(2))
    with pytest.raises(UserWarning, match="no `val_dataloader`"):
        trainer(tmp_path).fit(PlainNet(), loader(2))


def test_step_can_be_called_without_a_trainer():
    batch = next(iter(loader(1)))
    net = Net()
    assert net.training_step(batch, 0).shape == ()
    net.validation_step(batch, 0)


BAD = {
    "nothing": (lambda self, batch: None, r"Bad\.compute_loss returned None.*return statement missing.*scalar tensor"),
    "vector": (lambda self, batch: self.layer(batch[0]).sum(1), r"shape \(4,\)\. Take its mean"),
    "number": (lambda self, batch: 0.5, r"returned float 0\.5.*Return a scalar tensor"),
    "mapping": (lambda self, batch: {"lose": 1}, r"without \"loss\"; it has \['lose'\]"),
    "detached": (lambda self, batch: self.layer(batch[0]).mean().detach(), r"without a gradient.*without \.detach"),
    "extra": (
        lambda self, batch: {"loss": self.layer(batch[0]).mean(), "both": torch.ones(2)},
        "'both' beside the loss",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_compute_loss_that_returns_no_loss_is_refused_with_the_cure(tmp_path, kind):
    function, says = BAD[kind]
    bad = type("Bad", (Net,), {"compute_loss": function})
    with pytest.raises(ComputeLossError, match=f"(?s){says}"):
        trainer(tmp_path).fit(bad(), loader(2))


def test_missing_compute_loss_is_refused_before_anything_starts(tmp_path):
    class Empty(CheckpointingModule):
        def __init__(self):
            super().__init__(dirpath=tmp_path / "here")
            self.layer = torch.nn.Linear(2, 2)

    with pytest.raises(MissingComputeLossError, match=r"Empty has no compute_loss. Write it:\n    def compute_loss"):
        trainer(tmp_path).fit(Empty(), loader(2))
    with pytest.raises(NotImplementedError):
        Empty().compute_loss(None, 0)
    assert not (tmp_path / "here").exists()


def test_module_without_parameters_is_refused():
    class Nothing(CheckpointingModule):
        def compute_loss(self, batch):
            return torch.zeros(())

    with pytest.raises(PolicyError, match=r"Nothing has no parameter to train\. Make its layers in __init__"):
        Nothing().configure_optimizers()


@pytest.mark.parametrize("rate", [0, -1.0, float("inf"), float("nan"), "0.1", None])
def test_learning_rate_that_cannot_be_used_is_refused(rate):
    with pytest.raises(PolicyError, match=r"learning_rate=.*must be a finite number above 0"):
        Net(learning_rate=rate)


@pytest.mark.parametrize(
    "function",
    [
        lambda self, batch, stage="x": self.layer(batch[0]).sum() if stage == "x" else None,
        lambda self, batch, *, batch_idx: self.layer(batch[0]).sum() + batch_idx,
        lambda self, *both: self.layer(both[0][0]).sum() + both[1],
        lambda self, batch, number: self.layer(batch[0]).sum() + number,
    ],
    ids=["default", "by name", "args", "other name"],
)
def test_compute_loss_gets_batch_idx_only_where_it_asks_for_it(tmp_path, function):
    trainer(tmp_path).fit(type("Asking", (Net,), {"compute_loss": function})(), loader(2))
