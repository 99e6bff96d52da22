"""The law for checkpoints that are saved by hand: exact after the training, approximate inside a batch or a hook."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from nets import Net, loader, trainer
from torch.utils.data import DataLoader

from checkpointable import ResumeError
from checkpointable.catalog.info import read_info
from checkpointable.saving import end_state, session

LENGTHS = {  # the fit that is saved after, and the longer one
    "epochs": ({"max_epochs": 2}, {"max_epochs": 4}),
    "inside an epoch": ({"max_epochs": 4, "max_steps": 6}, {"max_epochs": 4, "max_steps": 14}),
    "inside a window": (
        {"max_epochs": 1, "accumulate_grad_batches": 3},
        {"max_epochs": 1, "accumulate_grad_batches": 3},
    ),
}
BY_LENGTH = pytest.mark.parametrize("length", LENGTHS)


class Seeing(Net):
    """Records its batches; dropout and batch norm, a scheduler by epoch and early stopping have states of their own."""

    def __init__(self, **options):
        torch.manual_seed(0)
        super().__init__(**{"patience": 9, "strict_resume": True, **options})
        self.layer = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Dropout(0.2), torch.nn.Linear(4, 2))
        self.seen = []

    def compute_loss(self, batch, batch_idx):
        if self.training:
            self.seen.append((self.current_epoch, batch_idx, batch[0].tolist()))
        return super().compute_loss(batch, batch_idx)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]


class Stopping(L.Callback):
    """Stops the training after this batch."""

    def __init__(self, after=None):
        self.after = after

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == self.after:
            trainer.should_stop = True


def data():
    return loader(4, shuffle=True), loader(2)


def end(own, net):
    moments = [value for state in own.optimizers[0].state_dict()["state"].values() for value in state.values()]
    rates = [group["lr"] for group in own.optimizers[0].param_groups]
    waited = [stopping.wait_count for stopping in own.early_stopping_callbacks]
    weights = [weight.tolist() for weight in net.parameters()]
    return weights, [moment.tolist() for moment in moments], rates, waited, own.current_epoch, torch.rand(1).item()


def fit(where, net, options, *, seed, ckpt_path=None, callbacks=()):
    torch.manual_seed(seed)
    own = trainer(where, callbacks=list(callbacks), **options)
    own.fit(net, *data(), ckpt_path=ckpt_path)
    return own


def resumed_after(where, length, save, *, callbacks=()):
    """What the longer training saw and ended with, and what the resumed one did, from the file that ``save`` saved."""
    short, long = LENGTHS[length]
    options = {"dirpath": where}
    if length == "inside a window":  # stopping there would run a validation that the longer training does not run
        short, long = ({**given, "limit_val_batches": 0} for given in (short, long))
        options |= {"patience": None, "monitor": None}
    net = Seeing(**options)
    straight = end(fit(where, net, long, seed=1), net), net.seen
    first = Seeing(**options)
    stopping = [Stopping(1)] if length == "inside a window" else []
    own = fit(where, first, short, seed=1, callbacks=[*stopping, *callbacks])
    save(own, where / "mine.ckpt")
    net = Seeing(**options)
    resumed = end(fit(where, net, long, seed=9, ckpt_path=where / "mine.ckpt"), net), first.seen + net.seen
    return straight, resumed


def after_fit(own, path):
    own.save_checkpoint(path)


def after_much_else(own, path):
    """The script uses the module and the random generators before it saves."""
    torch.rand(3)
    own.lightning_module.eval()
    own.save_checkpoint(path)


def after_another_run(own, path):
    """The finished run is started again from such a file, which is none of the files that it keeps."""
    first, length = path.with_name("first.ckpt"), {"max_epochs": own.max_epochs, "max_steps": own.max_steps}
    own.save_checkpoint(first)
    net = type(own.lightning_module)(dirpath=path.parent / "again")
    fit(path.parent, net, length, seed=7, ckpt_path=first).save_checkpoint(path)
    saved, last = read_info(path), read_info(net.last_model_path)
    assert (last.exactness, last.at) == ("exact", saved.at)


@pytest.mark.parametrize("length", ["epochs", "inside an epoch"])
def test_file_saved_by_hand_after_a_finished_run_was_started_again_resumes_exactly(tmp_path, length):
    straight, resumed = resumed_after(tmp_path, length, after_another_run)
    assert resumed == straight


@BY_LENGTH
@pytest.mark.parametrize("save", [after_fit, after_much_else])
def test_file_saved_by_hand_after_fit_resumes_exactly(tmp_path, length, save):
    straight, resumed = resumed_after(tmp_path, length, save)
    assert resumed == straight
    assert read_info(tmp_path / "mine.ckpt").exactness == "exact"
    assert read_info(tmp_path / "mine.ckpt").kind == "manual"


@pytest.mark.parametrize("hook", ["on_train_end", "on_fit_end", "teardown"])
def test_file_saved_by_hand_in_a_hook_of_the_end_resumes_exactly(tmp_path, hook):
    class Saving(L.Callback):
        pass

    def save(self, trainer, *_, **__):
        trainer.save_checkpoint(tmp_path / "mine.ckpt")

    setattr(Saving, hook, save)
    straight, resumed = resumed_after(tmp_path, "inside an epoch", lambda own, path: None, callbacks=[Saving()])
    assert resumed == straight
    assert read_info(tmp_path / "mine.ckpt").exactness == "exact"


@BY_LENGTH
def test_file_saved_by_hand_after_fit_is_refused_without_the_state_of_the_end(tmp_path, monkeypatch, length):
    """The twin: when the file is saved, the epoch has ended, and it is not known what changed since."""
    monkeypatch.setattr(session, "at_end", lambda trainer, capture: None)
    with pytest.raises(ResumeError, match="inside a batch, or an epoch's start or end"):
        resumed_after(tmp_path, length, after_much_else)


@pytest.mark.parametrize("digest", ["as it is", "blind"])
def test_file_saved_by_hand_after_weights_were_swapped_is_approximate_by_the_digest(tmp_path, monkeypatch, digest):
    """With its twin: a digest that sees nothing."""
    if digest == "blind":
        monkeypatch.setattr(end_state, "digest", lambda tensor: ())
    own = fit(tmp_path, Seeing(dirpath=tmp_path), {"max_epochs": 1}, seed=1, callbacks=[EMAWeightAveraging(decay=0.5)])
    own.save_checkpoint(tmp_path / "mine.ckpt")
    assert (read_info(tmp_path / "mine.ckpt").exactness == "exact") == (digest == "blind")


@pytest.mark.parametrize("when", ["at the end", "at the save"])
def test_file_saved_by_hand_without_memory_for_the_digest_is_approximate(tmp_path, monkeypatch, when):
    """Training ends as it would, and nothing is claimed."""

    def refuse(tensor):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")  # torch's own error

    digest = end_state.digest
    if when == "at the end":
        monkeypatch.setattr(end_state, "digest", refuse)
    own = fit(tmp_path, Seeing(dirpath=tmp_path), {"max_epochs": 1}, seed=1)
    monkeypatch.setattr(end_state, "digest", digest if when == "at the end" else refuse)
    own.save_checkpoint(tmp_path / "mine.ckpt")
    assert (
        "approximate (saved inside a batch, or an epoch's start or end" in read_info(tmp_path / "mine.ckpt").exactness
    )


def saving_at(hook, path):
    """A module that saves by hand in a hook of its second epoch, or before it."""

    class Saving(Seeing):
        pass

    def save(self, *args, **kwargs):
        result = getattr(Seeing, hook)(self, *args, **kwargs)
        if (self.current_epoch == 1 or hook in ("on_train_start", "setup")) and not self.trainer.sanity_checking:
            self.trainer.save_checkpoint(path)
        return result

    setattr(Saving, hook, save)
    return Saving


INSIDE = ["setup", "on_train_start", "on_train_epoch_start", "on_train_batch_start", "training_step"]
INSIDE += ["on_train_batch_end", "on_validation_start", "on_validation_end", "on_train_epoch_end"]


@pytest.mark.parametrize("hook", INSIDE)
@pytest.mark.filterwarnings("ignore:.*overrides")
def test_file_saved_by_hand_in_a_hook_of_the_training_is_called_approximate(tmp_path, hook):
    path = tmp_path / "mine.ckpt"
    fit(tmp_path, saving_at(hook, path)(dirpath=tmp_path), {"max_epochs": 2}, seed=1)
    assert read_info(path).exactness.startswith("everything: approximate (saved inside a batch, or an epoch's")
    with pytest.raises(ResumeError, match="everything: approximate"):
        fit(tmp_path, Seeing(dirpath=tmp_path), {"max_epochs": 3}, seed=9, ckpt_path=path)


@pytest.mark.parametrize("where", ["before a batch", "inside a batch"])
def test_file_saved_by_hand_in_on_exception_is_called_approximate(tmp_path, where):
    class Saving(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2 and where == "before a batch":
                raise KeyError("stop")

        def on_before_backward(self, trainer, pl_module, loss):
            if trainer.global_step == 2:
                raise KeyError("stop")

        def on_exception(self, trainer, pl_module, exception):
            trainer.save_checkpoint(tmp_path / "mine.ckpt")

    with pytest.raises(KeyError):
        fit(tmp_path, Seeing(dirpath=tmp_path), {"max_epochs": 1}, seed=1, callbacks=[Saving()])
    assert "everything: approximate" in read_info(tmp_path / "mine.ckpt").exactness


def test_file_saved_by_hand_after_weights_were_loaded_for_a_validation_is_not_exact(tmp_path):
    own = fit(tmp_path, Seeing(dirpath=tmp_path), {"max_epochs": 1}, seed=1)
    own.save_checkpoint(tmp_path / "first.ckpt")
    own.fit_loop.max_epochs = 2
    own.fit(own.lightning_module, *data())
    own.validate(own.lightning_module, loader(1), ckpt_path=tmp_path / "first.ckpt", verbose=False)
    own.save_checkpoint(tmp_path / "mine.ckpt")
    assert read_info(tmp_path / "mine.ckpt").exactness != "exact"


def test_validation_after_fit_leaves_the_state_of_the_end(tmp_path):
    def save(own, path):
        own.validate(own.lightning_module, DataLoader(loader(2).dataset, shuffle=True), verbose=False)
        own.save_checkpoint(path)

    straight, resumed = resumed_after(tmp_path, "inside an epoch", save)
    assert resumed == straight
