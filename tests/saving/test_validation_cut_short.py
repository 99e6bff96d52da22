"""SIGTERM and the first Ctrl-C in a validation: the state before it is saved, and the resume runs it whole."""

from __future__ import annotations

import signal
from dataclasses import replace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from nets import Net, files, load, loader, trainer
from torch.utils.data import DataLoader

from checkpointable import CheckpointableWarning
from checkpointable.catalog.info import read_info
from checkpointable.lightning_internals import averaging
from checkpointable.saving import before_validation


@pytest.fixture(autouse=True)
def keyboard():
    """Ctrl-C as a terminal has it; a shell starts what is in the background without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Signalled(L.Callback):
    """Sends the signal in one batch of one validation, counted from 0."""

    def __init__(self, number, validation, batch=1):
        self.number, self.at, self.validation = number, (validation, batch), -1

    def on_validation_epoch_start(self, trainer, pl_module):
        self.validation += 1

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if (self.validation, batch_idx) == self.at:
            signal.raise_signal(self.number)


class SignalledBefore(L.Callback):
    """Sends it at the end of the batch that triggers the validation."""

    def __init__(self, number, at):
        self.number, self.at = number, at

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.at:
            signal.raise_signal(self.number)


class Recorded(Net):
    """Draws in training and in validation, and notes all that it sees."""

    def __init__(self, **options):
        super().__init__(learning_rate=0.1, **options)
        self.dropout = torch.nn.Dropout(0.5)
        self.seen = []

    def compute_loss(self, batch, batch_idx):
        inputs, labels = batch
        loss = torch.nn.functional.cross_entropy(self.layer(self.dropout(inputs)), labels)
        epoch = self.trainer.current_epoch
        drawn = float(torch.rand(()))
        self.seen.append(
            (self.trainer.state.stage.value, epoch, batch_idx, float(inputs.sum()), float(loss.detach()), drawn)
        )
        return loss

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        return [optimizer], [{"scheduler": plateau, "monitor": "val_loss"}]


class Endless(torch.utils.data.IterableDataset):
    """Six batches of four, of a length that nobody knows."""

    def __iter__(self):
        return iter(loader(6).dataset)


def trained(where, *callbacks, ckpt_path=None, data=None, **options):
    torch.manual_seed(1)
    net = Recorded(dirpath=where, strict_resume=data is None)
    made = {"max_epochs": 2, "val_check_interval": 3, "num_sanity_val_steps": 0, **options}
    fit = trainer(where, callbacks=list(callbacks), **made)
    try:
        fit.fit(net, loader(6, shuffle=True) if data is None else data, loader(4, seed=9), ckpt_path=ckpt_path)
    except SystemExit:
        assert files(where), "nothing was saved"
    return net


def saved_in_validation(where):
    """The one file that is there, which holds the state before a validation."""
    (name,) = [name for name in files(where) if not name.startswith("best")]
    saved = load(where / name)["checkpointable"]
    assert saved["before_validation"]
    assert read_info(where / name).kind == "exception"
    return where / name


def differences(straight, stopped, resumed):
    """In what a resumed run differs from the one without a stop."""
    found = [
        name for name, value in straight.state_dict().items() if not torch.equal(value, resumed.state_dict()[name])
    ]
    trained = max(number for number, seen in enumerate(stopped.seen) if seen[0] == "train") + 1
    if stopped.seen[:trained] != straight.seen[:trained]:
        found.append("seen before the signal")
    if resumed.seen != straight.seen[trained:]:
        found.append(f"seen: {resumed.seen[:5]} for {straight.seen[trained:][:5]}")
    if straight.best_val_loss != resumed.best_val_loss:
        found.append("best_val_loss")
    return found


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run without a stop that most tests compare with."""
    return trained(tmp_path_factory.mktemp("straight"))


CASES = {
    "in the epoch": (signal.SIGTERM, 0, {}),
    "at its end": (signal.SIGINT, 1, {}),
    "at the end of the last": (signal.SIGTERM, 3, {}),
    "after max_steps": (signal.SIGINT, 2, {"max_steps": 9, "max_epochs": -1, "check_val_every_n_epoch": None}),
    "in a window": (signal.SIGTERM, 2, {"accumulate_grad_batches": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_signal_in_a_validation_saves_the_state_before_it_and_resumes_exactly(tmp_path, straight, case):
    number, validation, options = CASES[case]
    expected = trained(tmp_path / "straight", **options) if options else straight
    stopped = trained(tmp_path / "stopped", Signalled(number, validation), **options)
    resumed = trained(tmp_path / "resumed", ckpt_path=saved_in_validation(tmp_path / "stopped"), **options)
    assert differences(expected, stopped, resumed) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_signal_before_a_validation_begins_does_not_wait_for_its_first_batch(tmp_path, straight, number):
    stopped = trained(tmp_path / "stopped", SignalledBefore(number, at=8))
    assert [seen[0] for seen in stopped.seen] == [seen[0] for seen in straight.seen][: len(stopped.seen)]
    assert stopped.seen[-1][0] == "train"
    resumed = trained(tmp_path / "resumed", ckpt_path=saved_in_validation(tmp_path / "stopped"))
    assert differences(straight, stopped, resumed) == []


def test_validation_of_a_loader_without_a_length_is_run_by_the_resume(tmp_path):
    def ended(where, *callbacks, **options):
        return trained(where, *callbacks, data=DataLoader(Endless(), batch_size=4), val_check_interval=1.0, **options)

    straight = ended(tmp_path / "straight")
    stopped = ended(tmp_path / "stopped", Signalled(signal.SIGTERM, 1))
    resumed = ended(tmp_path / "resumed", ckpt_path=saved_in_validation(tmp_path / "stopped"))
    assert differences(straight, stopped, resumed) == []


def test_signal_in_the_validation_that_a_resume_runs_first_is_resumed_from_again(tmp_path, straight):
    stopped = trained(tmp_path / "stopped", Signalled(signal.SIGTERM, 2))
    again = trained(
        tmp_path / "stopped", Signalled(signal.SIGTERM, 0), ckpt_path=saved_in_validation(tmp_path / "stopped")
    )
    assert [seen[0] for seen in again.seen] == ["validate"] * 2
    resumed = trained(tmp_path / "resumed", ckpt_path=saved_in_validation(tmp_path / "stopped"))
    assert differences(straight, stopped, resumed) == []


def test_state_after_a_validation_that_a_resume_runs_is_saved_beside_the_one_before(tmp_path):
    """Both have the same position. A training that ends there must not leave the older one as its last."""
    trained(tmp_path, Signalled(signal.SIGTERM, 3))
    before = saved_in_validation(tmp_path)
    net = trained(tmp_path, ckpt_path=before)
    assert net.last_model_path != str(before)
    assert not load(net.last_model_path)["checkpointable"]["before_validation"]
    assert (read_info(net.last_model_path).epoch, read_info(net.last_model_path).batch) == (1, 6)


class Swapping(L.Callback):
    """Validates other weights than are trained, as an average of a user's own does."""

    def __init__(self, how):
        self.how, self.kept = how, []

    def on_validation_start(self, trainer, pl_module):
        self.kept = [weight.data.clone() for weight in pl_module.parameters()]
        for weight in pl_module.parameters():
            if self.how == "in place":
                weight.data.mul_(0.5)
            else:
                weight.data = weight.data * 0.5

    def on_validation_end(self, trainer, pl_module):
        for weight, kept in zip(pl_module.parameters(), self.kept, strict=False):
            weight.data.copy_(kept)


SWAPS = {
    "in place": lambda: Swapping("in place"),
    "with other memory": lambda: Swapping("with other memory"),
    "Lightning's": lambda: EMAWeightAveraging(decay=0.7),
}


@pytest.mark.parametrize("swap", SWAPS)
def test_weights_of_the_file_are_those_before_the_hooks_of_the_validation_swap_them(tmp_path, swap):
    straight = trained(tmp_path / "straight", SWAPS[swap]())
    stopped = trained(tmp_path / "stopped", SWAPS[swap](), Signalled(signal.SIGTERM, 3))
    path = saved_in_validation(tmp_path / "stopped")
    assert differences(straight, stopped, trained(tmp_path / "resumed", SWAPS[swap](), ckpt_path=path)) == []


@pytest.mark.parametrize("swap", SWAPS)
def test_twin_file_with_the_weights_that_are_validated_is_found_out(tmp_path, monkeypatch, swap):
    monkeypatch.setattr(averaging, "swap_back", lambda trainer: None)
    monkeypatch.setattr(before_validation, "_hooks_of_users", lambda trainer: False)
    straight = trained(tmp_path / "straight", SWAPS[swap]())
    stopped = trained(tmp_path / "stopped", SWAPS[swap](), Signalled(signal.SIGTERM, 3))
    path = saved_in_validation(tmp_path / "stopped")
    assert differences(straight, stopped, trained(tmp_path / "resumed", SWAPS[swap](), ckpt_path=path))


class Idle(L.Callback):
    """Has a hook that changes no weights, as most have, and looks whether they were copied."""

    def __init__(self):
        self.copied = []

    def on_validation_epoch_start(self, trainer, pl_module):
        self.copied.append(bool(pl_module._checkpointing.validation.before._weights))


def test_weights_are_copied_no_more_once_hooks_have_changed_none(tmp_path):
    idle, swapping = Idle(), [Idle(), Swapping("in place")]
    trained(tmp_path / "idle", idle)
    trained(tmp_path / "swapping", *swapping)
    assert (idle.copied, swapping[0].copied) == ([True, False, False, False], [True] * 4)


class SwappingLater(Swapping):
    def on_validation_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            super().on_validation_start(trainer, pl_module)


def test_weights_that_hooks_change_for_the_first_time_are_not_saved_as_those_before(tmp_path):
    with pytest.warns(CheckpointableWarning, match="the validation has changed weights or buffers"):
        trained(tmp_path, SwappingLater("in place"), Signalled(signal.SIGTERM, 2))
    assert not any(load(tmp_path / name)["checkpointable"]["before_validation"] for name in files(tmp_path))


def test_twin_state_as_the_signal_finds_it_is_found_out(tmp_path, monkeypatch, straight):
    """With the small state of that moment, and not of the one before, generators and counters are wrong."""

    def late(kept, checkpoint):
        module = nets[-1]
        state = module._checkpointing.state(module.trainer, at_safe_point=True, weights_only=False)
        return replace(state, before_validation=True)

    nets = []
    setup = Recorded.setup
    monkeypatch.setattr(Recorded, "setup", lambda net, stage: (nets.append(net), setup(net, stage)))
    monkeypatch.setattr(before_validation.BeforeValidation, "put_into", late)
    stopped = trained(tmp_path / "stopped", Signalled(signal.SIGTERM, 2))
    path = saved_in_validation(tmp_path / "stopped")
    assert differences(straight, stopped, trained(tmp_path / "resumed", ckpt_path=path))


def test_save_on_exception_false_saves_nothing_in_a_validation(tmp_path):
    net = Net(dirpath=tmp_path, save_on_exception=False)
    options = {"val_check_interval": 3, "callbacks": [Signalled(signal.SIGTERM, 1)]}
    with pytest.raises(SystemExit):
        trainer(tmp_path, **options).fit(net, loader(6), loader(4))
    assert files(tmp_path) == []
