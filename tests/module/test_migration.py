"""Changing the base class changes nothing but the saving."""

from __future__ import annotations

import warnings
from datetime import timedelta

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import Logger
from nets import MixedNet, PlainNet, load, loader, trainer


class Rows(Logger):
    """Keeps what is logged."""

    name, version, save_dir = "rows", 0, None

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *_, **__):
        pass


HOOKS = sorted(
    name
    for name in {*dir(L.Callback), *dir(L.LightningModule)}
    if name.startswith("on_") and "gpu" not in name and "batch_transfer" not in name
)


def recording(base):
    """A class that writes down every hook of module and callback that is called, in order; none calls super()."""
    calls = []

    def hook(name):
        def call(self, *args, **kwargs):
            calls.append(f"{'module' if isinstance(self, L.LightningModule) else 'callback'}.{name}")

        return call

    module_hooks = [name for name in HOOKS if hasattr(L.LightningModule, name) and "model_" not in name]
    module = type("Recorded", (base,), {name: hook(name) for name in module_hooks})
    callback = type("Recorder", (L.Callback,), {name: hook(name) for name in HOOKS if hasattr(L.Callback, name)})
    return module, callback(), calls


@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": 2},
        {"max_epochs": 2, "val_check_interval": 2, "accumulate_grad_batches": 2},
        {"max_steps": 5, "check_val_every_n_epoch": 2},
    ],
    ids=str,
)
def test_mixin_keeps_hooks_order_logged_rows_numbers_and_warnings(tmp_path, options):
    seen = {}
    for base in (PlainNet, MixedNet):
        module, callback, calls = recording(base)
        rows = Rows()
        L.seed_everything(5, verbose=False)
        net = module(save_interval=1, save_top_k=2, dirpath=tmp_path / "ours") if base is MixedNet else module()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            own = trainer(tmp_path, logger=rows, callbacks=[callback], log_every_n_steps=1, **options)
            own.fit(net, loader(5, shuffle=True), loader(2))
        messages = {str(warning.message) for warning in caught}
        calls = [call for call in calls if "save_checkpoint" not in call]
        seen[base] = (calls, rows.rows, net.layer.weight.tolist(), messages, own.global_step)
    plain, mixed = seen[PlainNet], seen[MixedNet]
    assert mixed[0] == plain[0]
    assert mixed[1] == plain[1]
    assert mixed[2] == plain[2]
    assert mixed[3] <= plain[3]
    assert mixed[4] == plain[4]


def test_mixin_passes_arguments_on_to_the_next_class():
    class Sized(PlainNet):
        def __init__(self, width, depth=1):
            super().__init__()
            self.size = (width, depth)

    from checkpointable import CheckpointingMixin

    class Mixed(CheckpointingMixin, Sized):
        pass

    assert Mixed(3, depth=2, save_interval=5).size == (3, 2)
    with pytest.raises(TypeError, match="save_intervall"):
        Mixed(3, save_intervall=5)


def test_save_hyperparameters_works_through_our_init(tmp_path):
    from nets import Net

    class Wide(Net):
        def __init__(self, width=2, **options):
            super().__init__(**options)
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(2, width)

    net = Wide(width=3, dirpath=tmp_path, train_time_interval=timedelta(hours=1))
    assert net.hparams["width"] == 3
    trainer(tmp_path).fit(net, loader(2), loader(1))
    assert load(net.best_model_path)["hyper_parameters"] == {"width": 3}
    assert Wide.load_from_checkpoint(net.best_model_path).layer.out_features == 3


def test_state_dict_and_submodules_are_the_users_alone():
    from nets import Net

    net = Net()
    trainer_less = next(iter(loader(1)))
    net.validation_step(trainer_less, 0)
    assert list(net.state_dict()) == ["layer.weight", "layer.bias"]
    assert [name for name, _ in net.named_children()] == ["layer"]
