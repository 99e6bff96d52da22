"""A module's author may use the names of our attributes and arguments: then the author's are what they mean."""

from __future__ import annotations

import copy
import math
import pickle

import lightning as L
import pytest
import torch
import torchmetrics
from nets import Net, load, loader, trainer

from checkpointable import CheckpointingMixin, CheckpointingModule


class Own(CheckpointingMixin, L.LightningModule):
    """Sets what it is given before anything else."""

    def __init__(self, give=lambda module: None, **options):
        super().__init__(**{"monitor": None, **options})
        give(self)
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, inputs):
        return self.layer(inputs)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


NAMES = ["save_interval", "best_val_loss", "best_model_path", "best_model_score", "best_k_models", "last_model_path"]


@pytest.mark.parametrize("name", NAMES)
def test_value_that_the_author_sets_is_what_is_read(name):
    for value in ("", None, 0.0, math.inf):
        net = Own(lambda module, value=value: setattr(module, name, value))
        assert getattr(net, name) is value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("register", "kept_in"),
    [
        (lambda module, name: module.register_buffer(name, torch.ones(2)), "_buffers"),
        (lambda module, name: module.register_parameter(name, torch.nn.Parameter(torch.ones(2))), "_parameters"),
        (lambda module, name: setattr(module, name, torch.nn.Parameter(torch.ones(2))), "_parameters"),
        (lambda module, name: module.add_module(name, torch.nn.Linear(1, 1)), "_modules"),
        (lambda module, name: setattr(module, name, torchmetrics.MinMetric()), "_modules"),
    ],
    ids=["buffer", "parameter", "assigned parameter", "module", "metric"],
)
def test_buffer_parameter_or_module_of_the_author_is_what_is_read(name, register, kept_in):
    net = Own(lambda module: register(module, name))
    assert getattr(net, name) is getattr(net, kept_in)[name]


def test_method_and_property_of_a_class_are_what_is_read():
    class Mine(Own):
        best_val_loss = 3

        @property
        def best_model_path(self):
            return "mine"

    assert (Mine().best_val_loss, Mine().best_model_path) == (3, "mine")


def test_names_that_the_author_does_not_use_answer_for_the_run(tmp_path):
    net = Own(dirpath=tmp_path, save_interval=2)
    fitted = trainer(tmp_path)
    fitted.fit(net, loader(2))
    assert net.save_interval == 2
    assert net.best_val_loss == math.inf
    assert net.last_model_path == fitted.checkpoint_callback.last_model_path != ""
    with pytest.raises(AttributeError, match="no attribute 'best_val_los'"):
        _ = net.best_val_los


def test_run_of_an_author_with_all_these_names_saves_and_resumes(tmp_path):
    def give(module):
        for name in NAMES:
            setattr(module, name, "mine")

    net = Own(give, dirpath=tmp_path, save_interval=2)
    fitted = trainer(tmp_path)
    fitted.fit(net, loader(3))
    path = fitted.checkpoint_callback.last_model_path
    again = Own(give, dirpath=tmp_path, save_interval=2)
    trainer(tmp_path, max_epochs=2).fit(again, loader(3), ckpt_path=path)
    assert [getattr(again, name) for name in NAMES] == ["mine"] * len(NAMES)


def test_buffer_called_best_val_loss_is_in_the_files_and_restored(tmp_path):
    def give(module):
        module.register_buffer("best_val_loss", torch.tensor(9.0))

    net = Own(give, dirpath=tmp_path)
    net.best_val_loss.fill_(4.0)
    fitted = trainer(tmp_path)
    fitted.fit(net, loader(2))
    path = fitted.checkpoint_callback.last_model_path
    assert load(path)["state_dict"]["best_val_loss"] == 4.0
    assert Own.load_from_checkpoint(path, give=give).best_val_loss == 4.0


def test_checkpointing_module_keeps_its_interval_and_its_best_loss():
    net = Net(save_interval=2)
    net.save_interval, net.best_val_loss = 5, 0.25
    assert net._checkpointing.options.save_interval == 5
    assert net._checkpointing.progress.best_val_loss == 0.25
    net.best_model_path = ""
    assert vars(net)["best_model_path"] == ""


@pytest.mark.filterwarnings("ignore:.*orch.?[sS]cript", "ignore:.*to_torchscript", "ignore:.*torch.jit")
@pytest.mark.parametrize("method", ["script", "trace"])
def test_torchscript_of_a_module(method):
    net = Own()
    inputs = torch.randn(3, 2)
    scripted = net.to_torchscript(method=method, example_inputs=inputs)
    assert torch.equal(scripted(inputs), net(inputs))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_trainer_is_copied_after_a_fit(tmp_path, copied):
    fitted = trainer(tmp_path)
    net = Net(dirpath=tmp_path)
    fitted.fit(net, loader(2), loader(1))
    again = copied(fitted)
    assert again.lightning_module.best_val_loss == net.best_val_loss < math.inf
    assert again.checkpoint_callback.best_model_path == net.best_model_path != ""


class Lab(L.LightningModule):
    """A base class of somebody that knows nothing of this library."""

    def __init__(self, width=2):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, width)


def test_base_class_behind_ours_saves_its_own_hyperparameters():
    class Mixed(CheckpointingMixin, Lab):
        def __init__(self, width=2):
            super().__init__(width=width, save_interval=5, save_top_k=3)

    class Module(CheckpointingModule, Lab):
        def __init__(self, width=2):
            super().__init__(width=width, save_interval=5, learning_rate=0.5)

    assert dict(Mixed(width=4).hparams) == {"width": 4}
    assert dict(Module(width=4).hparams) == {"width": 4}


@pytest.mark.parametrize(
    ("save", "expected"),
    [
        (lambda net: net.save_hyperparameters(), {"width": 3, "learning_rate": 0.5}),
        (lambda net: net.save_hyperparameters("width"), {"width": 3}),
        (lambda net: net.save_hyperparameters(ignore="width"), {"learning_rate": 0.5}),
        (lambda net: net.save_hyperparameters({"monitor": "mine"}), {"monitor": "mine"}),
    ],
)
def test_arguments_of_this_library_are_no_hyperparameters_unless_the_author_names_them(save, expected):
    class Passing(CheckpointingModule):
        def __init__(self, width, learning_rate=0.1, **options):
            super().__init__(learning_rate=learning_rate, **options)
            save(self)

    assert dict(Passing(3, learning_rate=0.5, save_interval=4, dirpath="here").hparams) == expected


def test_init_that_reaches_super_through_a_helper():
    class Helped(CheckpointingModule):
        def __init__(self, width):
            self._build(width)

        def _build(self, width):
            super().__init__(save_interval=5)
            self.layer = torch.nn.Linear(2, width)

    assert Helped(3).save_interval == 5


def test_buffer_that_is_not_saved_can_be_assigned_as_in_any_module():
    """Torch looks whether ``register_buffer`` has an argument of that name."""
    net = Net()
    net.register_buffer("count", torch.zeros(1), persistent=False)
    net.count = torch.ones(1)
    net.count += 1
    assert net.count == 2
    assert "count" not in net.state_dict()
    net.register_buffer("saved", torch.zeros(1))
    assert "saved" in net.state_dict()
