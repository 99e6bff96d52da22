"""The state of every optimizer of torch comes back in its own types, and weights in all their bits."""

from __future__ import annotations

import itertools

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from nets import load, trainer
from torch.utils.data import DataLoader, TensorDataset

from checkpointable import CheckpointingModule, ResumeError
from checkpointable.policy.verdict import Level
from checkpointable.resume import restorer

OPTIMIZERS = {
    "ASGD": {"t0": 2}, "Adadelta": {}, "Adafactor": {}, "Adagrad": {}, "Adam": {"amsgrad": True}, "AdamW": {},
    "Adamax": {}, "LBFGS": {"max_iter": 3}, "Muon": {}, "NAdam": {}, "RAdam": {}, "RMSprop": {"momentum": 0.9},
    "Rprop": {}, "SGD": {"momentum": 0.9}, "SparseAdam": {},
}  # fmt: skip
PRECISIONS = ("bf16-true", "32-true", "bf16-mixed", "16-mixed")
QUICK = {"NAdam", "ASGD", "AdamW", "LBFGS"}
MATRIX = [
    pytest.param(name, precision, marks=[] if name in QUICK or precision == "bf16-true" else pytest.mark.sweep)
    for name, precision in itertools.product(OPTIMIZERS, PRECISIONS)
    if (name, precision) != ("LBFGS", "16-mixed")  # Lightning refuses it
]


class Masters(torch.optim.SGD):
    """Keeps a copy of each weight in 32 bits, and steps on it."""

    @torch.no_grad()
    def step(self, closure):
        loss = torch.enable_grad()(closure)()
        for weight in self.param_groups[0]["params"]:
            state = self.state[weight]
            master = state.setdefault("masters", {"weight": weight.float()})["weight"]
            master.sub_(weight.grad.float(), alpha=self.param_groups[0]["lr"])
            weight.copy_(master)
        return loss


class Net(CheckpointingModule):
    def __init__(self, name: str, dtype: torch.dtype = torch.float32, **options):
        super().__init__(**{"save_interval": 3, "save_last_k": -1, "monitor": None, **options})
        self.name, self.sparse = name, name == "SparseAdam"
        self.layer = torch.nn.Embedding(8, 4, sparse=True) if self.sparse else torch.nn.Linear(8, 4, bias=False)
        self.to(dtype)

    def compute_loss(self, batch):
        inputs = batch[0].argmax(1) if self.sparse else batch[0].to(self.layer.weight.dtype)
        return (self.layer(inputs).float() - 1).square().mean()

    def configure_optimizers(self):
        if self.name == "Masters":
            return Masters(self.parameters(), lr=0.01)
        return getattr(torch.optim, self.name)(self.parameters(), lr=0.05, **OPTIMIZERS[self.name])


def fit(net, root, precision, path=None):
    inputs = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    options = {"precision": precision}
    if precision == "16-mixed":  # Trainer(precision=...) takes bf16 in its place on a CPU
        options = {"plugins": [MixedPrecision("16-mixed", "cpu")]}
    training = trainer(root, max_epochs=2, **options)
    training.fit(net, DataLoader(TensorDataset(inputs), batch_size=4), ckpt_path=path)
    return net.layer.weight.detach(), list(training.optimizers[0].state.values())


def types(state):
    if isinstance(state, torch.Tensor):
        return state.dtype
    if isinstance(state, dict):
        return {name: types(value) for name, value in state.items()}
    return [types(value) for value in state] if isinstance(state, list) else None


def resumed_and_straight(tmp_path, make, precision):
    torch.manual_seed(0)
    straight = fit(make(dirpath=tmp_path / "a"), tmp_path, precision)
    net = make(dirpath=tmp_path / "b", strict_resume=True)
    return fit(net, tmp_path, precision, tmp_path / "a/epoch_0_batch_3.ckpt"), straight


@pytest.mark.parametrize(("name", "precision"), MATRIX)
def test_optimizer_resumes_with_its_state_in_the_same_types_and_the_same_weights(tmp_path, name, precision):
    resumed, straight = resumed_and_straight(tmp_path, lambda **options: Net(name, **options), precision)
    assert torch.equal(resumed[0], straight[0])
    assert types(resumed[1]) == types(straight[1])


def test_master_weights_in_32_bits_stay_in_32_bits(tmp_path):
    make = lambda **options: Net("Masters", torch.bfloat16, **options)  # noqa: E731
    resumed, straight = resumed_and_straight(tmp_path, make, "32-true")
    assert torch.equal(resumed[0], straight[0])
    assert torch.equal(resumed[1][0]["masters"]["weight"], straight[1][0]["masters"]["weight"])
    assert types(load(tmp_path / "b/epoch_1_batch_6.ckpt")["optimizer_states"][0]["state"][0]) == {
        "masters": {"weight": torch.float32}
    }


def test_weights_in_64_bits_come_back_in_all_their_bits(tmp_path):
    resumed, straight = resumed_and_straight(tmp_path, lambda **options: Net("AdamW", **options), "64-true")
    assert resumed[0].dtype == torch.float64
    assert torch.equal(resumed[0], straight[0])


def test_twin_that_leaves_weights_rounded_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(restorer, "restore_rounded", lambda weights, saved: None)
    with pytest.raises(ResumeError, match=r"weights: approximate \(layer.weight: not as in the file"):
        resumed_and_straight(tmp_path, lambda **options: Net("AdamW", **options), "64-true")


def test_twin_without_the_types_is_approximate_and_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(restorer, "restore_dtypes", lambda optimizer, saved: None)
    straight = Net("NAdam", dirpath=tmp_path / "a")
    fit(straight, tmp_path, "bf16-true")
    again = Net("NAdam", dirpath=tmp_path / "b")
    verdicts = []
    again.on_train_start = lambda: verdicts.extend(again._checkpointing.restorer.verdicts)
    fit(again, tmp_path, "bf16-true", tmp_path / "a/epoch_0_batch_3.ckpt")
    assert [(it.part, it.level) for it in verdicts if it.level != Level.EXACT] == [("optimizers", Level.APPROXIMATE)]
