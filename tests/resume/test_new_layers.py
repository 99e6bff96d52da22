"""With ``strict_loading=False``, weights and optimizer states that fit are restored by name; what is new is named."""

from __future__ import annotations

import pytest
import torch
from nets import Net, load, loader, trainer

from checkpointable import ResumeError
from checkpointable.resume import parameter_names

MIDDLE = {"save_interval": 2, "save_last_k": -1, "save_top_k": 0, "save_last": False}
OPTIMIZERS = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1),
    "momentum": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
    "adafactor": lambda groups: torch.optim.Adafactor(groups, lr=0.1),
}


class Layered(Net):
    """Layers in a chain; it notes what the optimizers hold before the first resumed batch."""

    strict_loading = False

    def __init__(self, sizes, optimizer="adamw", groups=1, schedule=False, **options):
        super().__init__(**{**MIDDLE, **options})
        self.optimizer, self.groups, self.schedule = OPTIMIZERS[optimizer], groups, schedule
        for name, size in sizes.items():
            setattr(self, name, torch.nn.Linear(*size))
        self.chain = list(sizes)

    def compute_loss(self, batch, batch_idx):
        inputs, labels = batch
        for name in self.chain:
            inputs = getattr(self, name)(inputs)
        return torch.nn.functional.cross_entropy(self.layer(inputs), labels)

    def on_train_start(self):
        super().on_train_start()
        names = {weight: name for name, weight in self.named_parameters()}
        self.at_start = {
            names[weight]: {key: value.clone() for key, value in state.items() if isinstance(value, torch.Tensor)}
            for optimizer in self.trainer.optimizers
            for weight, state in optimizer.state.items()
        }
        self.weights = {name: weight.detach().clone() for name, weight in self.named_parameters()}
        self.rates = [group["lr"] for group in self.trainer.optimizers[0].param_groups]

    def configure_optimizers(self):
        weights = list(self.parameters())
        size = -(-len(weights) // self.groups)
        groups = [{"params": weights[at : at + size]} for at in range(0, len(weights), size)]
        optimizer = self.optimizer(groups)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)] if self.schedule else []


BEFORE = {"first": (2, 2), "second": (2, 2)}


def saved(tmp_path, **options):
    """A checkpoint after the second batch of the second epoch, its path and its states by name."""
    net = Layered(BEFORE, dirpath=tmp_path / "a", **options)
    trainer(tmp_path, max_epochs=2).fit(net, loader(3))
    path = tmp_path / "a/epoch_1_batch_2.ckpt"
    names, states = [name for name, _ in net.named_parameters()], load(path)["optimizer_states"][0]["state"]
    return path, {names[number]: state for number, state in states.items()}


def resume(path, sizes, caplog, **options):
    net = Layered(sizes, dirpath=path.parent.parent / "b", **options)
    with caplog.at_level("INFO"):
        trainer(path.parent, max_epochs=3).fit(net, loader(3), ckpt_path=path)
    [line] = [record.message for record in caplog.records if "resumes after" in record.message]
    return net, line.partition(f"from {path}: ")[2]


def assert_restored(net, path, states, names):
    for name in names:
        torch.testing.assert_close(net.weights[name], load(path)["state_dict"][name], rtol=0, atol=0)
        for key, value in net.at_start[name].items():
            torch.testing.assert_close(value, states[name][key], rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_new_layer_between_old_ones_leaves_them_their_weights_and_states(tmp_path, caplog, optimizer):
    path, states = saved(tmp_path, optimizer=optimizer)
    sizes = {"first": (2, 2), "added": (2, 2), "second": (2, 2)}
    net, line = resume(path, sizes, caplog, optimizer=optimizer)
    assert line == (
        "weights: approximate (added.weight, added.bias: not in the file with this shape, as the script made them);"
        " optimizers: approximate (added.weight, added.bias: new, so without state)"
    )
    assert set(net.at_start) == set(states)
    assert_restored(net, path, states, states)


def test_new_layer_in_the_order_of_numbers_would_get_the_state_of_another(tmp_path, caplog, monkeypatch):
    path, _ = saved(tmp_path)
    monkeypatch.setattr(parameter_names, "fit", lambda *_: None)
    with pytest.raises(ValueError, match="doesn't match the size"):
        resume(path, {"first": (2, 2), "added": (2, 2), "second": (2, 2)}, caplog)


def test_layer_of_another_shape_is_new_and_one_that_is_gone_is_named(tmp_path, caplog):
    path, states = saved(tmp_path)
    net, line = resume(path, {"first": (2, 2), "other": (2, 3), "last": (3, 2)}, caplog)
    assert "second.weight, second.bias: only in the file" in line
    assert "second.weight, second.bias: only in the file, so its state is dropped" in line
    assert_restored(net, path, states, ["layer.weight", "first.weight", "first.bias"])
    caplog.clear()
    net, line = resume(path, {"first": (2, 5), "second": (5, 2)}, caplog)
    assert "first.weight, first.bias, second.weight: not in the file with this shape, as the script made them" in line
    assert set(net.at_start) == {"layer.weight", "layer.bias", "second.bias"}
    assert_restored(net, path, states, net.at_start)


def test_parameters_in_other_groups_keep_their_states_and_the_schedule(tmp_path, caplog):
    path, states = saved(tmp_path, schedule=True)
    net, line = resume(path, BEFORE, caplog, groups=2, schedule=True)
    assert line == "exact"
    assert_restored(net, path, states, states)
    assert net.rates == [0.05, 0.05]
    assert [group["lr"] for group in net.trainer.optimizers[0].param_groups] == [0.0125, 0.0125]


def test_group_that_is_new_starts_where_the_schedule_stands(tmp_path, caplog):
    path, states = saved(tmp_path, schedule=True)
    sizes = {**BEFORE, "third": (2, 2), "fourth": (2, 2), "fifth": (2, 2)}
    net, _ = resume(path, sizes, caplog, groups=2, schedule=True)
    assert_restored(net, path, states, states)
    assert net.rates == [0.05, 0.05]


def test_learning_rate_from_script_reaches_a_module_with_a_new_layer(tmp_path, caplog, monkeypatch):
    path, states = saved(tmp_path)
    monkeypatch.setitem(OPTIMIZERS, "adamw", lambda groups: torch.optim.AdamW(groups, lr=0.03))
    net, line = resume(path, {**BEFORE, "third": (2, 2)}, caplog, from_script="learning_rate")
    assert "learning rate 0.03 (script), was 0.1" in line
    assert net.rates == [pytest.approx(0.03)]
    assert_restored(net, path, states, states)


def test_new_layer_is_refused_when_strict(tmp_path, caplog):
    path, _ = saved(tmp_path)
    with pytest.raises(ResumeError, match=r"third\.weight, third\.bias: new, so without state"):
        resume(path, {**BEFORE, "third": (2, 2)}, caplog, strict_resume=True)


def test_new_layer_that_the_script_has_frozen_stays_frozen(tmp_path, caplog):
    class Frozen(Layered):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.third.requires_grad_(False)

    path, _ = saved(tmp_path)
    net = Frozen({**BEFORE, "third": (2, 2)}, dirpath=tmp_path / "b")
    trainer(tmp_path, max_epochs=3).fit(net, loader(3), ckpt_path=path)
    assert not net.third.weight.requires_grad
    assert net.first.weight.requires_grad


def test_same_module_without_strict_loading_is_exact(tmp_path, caplog):
    path, states = saved(tmp_path)
    net, line = resume(path, BEFORE, caplog, strict_resume=True)
    assert line == "exact"
    assert_restored(net, path, states, states)


class Pair(Layered):
    """Two optimizers, one of the first layer and one of the others."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = self.compute_loss(batch, batch_idx)
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self):
        others = [weight for name, weight in self.named_parameters() if not name.startswith("first")]
        return torch.optim.SGD(self.first.parameters(), lr=0.1, momentum=0.9), torch.optim.AdamW(others, lr=0.01)


def test_each_of_several_optimizers_keeps_the_states_of_its_parameters(tmp_path):
    whole = Pair(BEFORE, dirpath=tmp_path / "a")
    trainer(tmp_path, max_epochs=2).fit(whole, loader(3))
    path = tmp_path / "a/epoch_1_batch_2.ckpt"
    first, others = (saved["state"] for saved in load(path)["optimizer_states"])
    net = Pair({"first": (2, 2), "added": (2, 2), "second": (2, 2)}, dirpath=tmp_path / "b")
    trainer(tmp_path, max_epochs=3).fit(net, loader(3), ckpt_path=path)
    names = ["layer.weight", "layer.bias", "second.weight", "second.bias"]
    assert_restored(net, path, dict(zip(names, others.values(), strict=True)), names)
    assert_restored(net, path, dict(zip(("first.weight", "first.bias"), first.values(), strict=True)), ["first.weight"])
    assert "added.weight" not in net.at_start
