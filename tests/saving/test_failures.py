"""What goes wrong, and what is kept all the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import forked
import lightning as L
import pytest
import torch
from nets import Net, files, links, load, loader, trainer

from checkpointable import CheckpointableWarning, SaveError
from checkpointable.catalog.info import read_info
from checkpointable.storage import commit

HERE = Path(__file__).parent


class CrashError(Exception):
    """Thrown by the tests' own code."""


class BrokenSample(torch.utils.data.Dataset):
    """Of its six batches of four, the fourth cannot be read."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        if index == 14:
            raise CrashError("sample 14")
        return torch.ones(2), 0


class Raising(L.Callback):
    """Raises in a hook, at a batch."""

    def __init__(self, hook, at, exception=CrashError):
        def strike(trainer, pl_module, *args):
            if args[-1:] == (at,) or at is None:
                raise exception

        setattr(self, hook, strike)


def test_exception_inside_a_batch_saves_nothing_and_names_the_file_to_go_on_from(tmp_path, caplog):
    net = Net(dirpath=tmp_path, save_interval=2)
    with caplog.at_level("INFO"), pytest.raises(CrashError):
        trainer(tmp_path, callbacks=[Raising("on_train_batch_end", 2)]).fit(net, loader(6))
    assert files(tmp_path) == ["epoch_0_batch_2.ckpt"]
    assert any(
        f"Resume from {tmp_path / 'epoch_0_batch_2.ckpt'} (epoch 0, batch 2" in r.message for r in caplog.records
    )


def test_exception_while_a_batch_is_fetched_keeps_the_state_before_it(tmp_path):
    net = Net(dirpath=tmp_path)
    with pytest.raises(CrashError):
        trainer(tmp_path).fit(net, torch.utils.data.DataLoader(BrokenSample(), batch_size=4))
    assert files(tmp_path) == ["epoch_0_batch_3.ckpt"]
    assert read_info(net.last_model_path).kind == "exception"
    assert links(tmp_path) == {"last.ckpt": "epoch_0_batch_3.ckpt"}


def test_exception_at_a_position_that_is_saved_is_not_saved_again(tmp_path):
    net = Net(dirpath=tmp_path, save_interval=2)
    with pytest.raises(CrashError):
        trainer(tmp_path, callbacks=[Raising("on_train_epoch_end", None)]).fit(net, loader(4))
    assert files(tmp_path) == ["epoch_0_batch_2.ckpt"], "the epoch was not over, so its last batch is no safe point"


def test_save_on_exception_false_keeps_nothing(tmp_path):
    net = Net(dirpath=tmp_path, save_on_exception=False)
    with pytest.raises(CrashError):
        trainer(tmp_path, callbacks=[Raising("on_train_batch_start", 3)]).fit(net, loader(6))
    assert files(tmp_path) == []


class Unwritable(Net):
    """Cannot be saved once the training is interrupted."""

    def __init__(self, error, **options):
        super().__init__(**options)
        self.error = error

    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        if self.trainer.interrupted:
            raise self.error


def end_by_a_broken_sample(tmp_path, net):
    """Whether the exception arrives, and the data module and Lightning's teardown, which come after us, are reached."""
    heard = []
    data = L.LightningDataModule()
    data.train_dataloader = lambda: torch.utils.data.DataLoader(BrokenSample(), batch_size=4)
    data.on_exception = lambda exception: heard.append(type(exception))
    fitting = trainer(tmp_path)
    with pytest.raises(CrashError, match="sample 14"):
        fitting.fit(net, datamodule=data)
    return heard == [CrashError] and fitting.state.stage is None


LOST = r"while CrashError ended the training, the state after epoch 0, batch 3, step 3 was not saved"


def test_error_of_the_users_while_the_last_state_is_saved_does_not_hide_what_ended_the_training(tmp_path):
    net = Unwritable(RuntimeError("device-side assert"), dirpath=tmp_path)
    with pytest.warns(CheckpointableWarning, match=rf"^{LOST}: RuntimeError: device-side assert$"):
        assert end_by_a_broken_sample(tmp_path, net)
    assert files(tmp_path) == []


def test_name_that_cannot_be_made_for_the_last_state_does_not_hide_what_ended_the_training(tmp_path):
    net = Net(dirpath=tmp_path, filename="at_{train_loss:d}")
    with pytest.warns(CheckpointableWarning, match=rf"^{LOST}: PolicyError: cannot name a checkpoint .*train_loss"):
        assert end_by_a_broken_sample(tmp_path, net)


def test_disk_that_is_full_for_the_last_state_does_not_hide_what_ended_the_training(tmp_path, monkeypatch):
    def full(path, *args, **kwargs):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(commit, "commit", full)
    with pytest.warns(CheckpointableWarning, match=rf"^{LOST}: .*No space left.*Older checkpoints are untouched: none"):
        assert end_by_a_broken_sample(tmp_path, Net(dirpath=tmp_path))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interruption_while_the_last_state_is_saved_is_not_swallowed(tmp_path, error):
    with pytest.raises(error):
        trainer(tmp_path).fit(
            Unwritable(error(), dirpath=tmp_path), torch.utils.data.DataLoader(BrokenSample(), batch_size=4)
        )
    assert files(tmp_path) == []


class SignalOnce(L.Callback):
    """Sends this process a signal in the middle of a batch."""

    def __init__(self, number, at):
        self.number, self.at = number, at

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.fit_loop.batch_idx == self.at:
            os.kill(os.getpid(), self.number)


def test_sigterm_saves_and_stops_in_order(tmp_path):
    net = Net(dirpath=tmp_path)
    with pytest.raises(SystemExit):
        trainer(tmp_path, callbacks=[SignalOnce(signal.SIGTERM, at=3)]).fit(net, loader(9))
    assert files(tmp_path) == ["epoch_0_batch_4.ckpt"]


def test_sigterm_inside_a_window_saves_its_gradients(tmp_path):
    class Late(SignalOnce):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == self.at:
                os.kill(os.getpid(), self.number)

    net = Net(dirpath=tmp_path)
    with pytest.raises(SystemExit):
        trainer(tmp_path, accumulate_grad_batches=4, callbacks=[Late(signal.SIGTERM, at=5)]).fit(net, loader(9))
    saved = load(net.last_model_path)["checkpointable"]
    assert saved["position"]["batch"] == 6
    assert saved["gradients"]


def test_save_that_fails_is_a_warning_and_the_next_one_tries_again(tmp_path, monkeypatch):
    net = Net(dirpath=tmp_path, save_interval=2, save_last_k=-1)
    original, calls = commit.commit, []

    def failing(path, *args, **kwargs):
        calls.append(path.name)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(path))
        original(path, *args, **kwargs)

    monkeypatch.setattr(commit, "commit", failing)
    with pytest.warns(CheckpointableWarning, match=r"epoch 0, batch 4.* not saved: .*No space left.*next save tries"):
        trainer(tmp_path).fit(net, loader(7))
    assert files(tmp_path) == ["epoch_0_batch_2.ckpt", "epoch_0_batch_6.ckpt", "epoch_0_batch_7.ckpt"]


def test_final_save_that_fails_raises_and_loses_nothing(tmp_path, monkeypatch):
    net = Net(dirpath=tmp_path, save_interval=2)
    original, calls = commit.commit, []

    def failing(path, *args, **kwargs):
        calls.append(path.name)
        if len(calls) >= 2:
            raise OSError(28, "No space left on device", str(path))
        original(path, *args, **kwargs)

    monkeypatch.setattr(commit, "commit", failing)
    with pytest.raises(SaveError, match=r"No space left.*Older checkpoints are untouched: .*epoch_0_batch_2\.ckpt"):
        trainer(tmp_path, limit_train_batches=3).fit(net, loader(3))
    assert files(tmp_path) == ["epoch_0_batch_2.ckpt"]
    assert links(tmp_path) == {"last.ckpt": "epoch_0_batch_2.ckpt"}


def test_error_that_is_not_the_disks_is_raised_at_once(tmp_path):
    class Unpicklable(Net):
        def on_save_checkpoint(self, checkpoint):
            super().on_save_checkpoint(checkpoint)
            checkpoint["mine"] = lambda: None

    named = pytest.warns(CheckpointableWarning, match=r"checkpoint\['mine'\] is a builtins\.function")
    with named, pytest.raises(Exception, match="pickle"):
        trainer(tmp_path).fit(Unpicklable(dirpath=tmp_path, save_interval=1, save_on_exception=False), loader(3))
    assert files(tmp_path) == []
    assert not list(tmp_path.glob(".checkpointable-*.tmp"))


@pytest.mark.parametrize("what", ["file", "below a file"])
def test_directory_that_cannot_be_one_is_refused_before_training(tmp_path, what):
    (tmp_path / "taken").write_text("a file")
    trained = []

    class Noting(Net):
        def training_step(self, batch, batch_idx):
            trained.append(batch_idx)
            return super().training_step(batch, batch_idx)

    where = tmp_path / "taken" if what == "file" else tmp_path / "taken" / "below"
    with pytest.raises(SaveError, match=r"a part of that path is a file\. Choose another dirpath"):
        trainer(tmp_path).fit(Noting(dirpath=where), loader(3))
    assert trained == []


def test_directory_that_is_not_writable_is_refused_before_training(tmp_path):
    where = tmp_path / "theirs"
    where.mkdir(mode=0o555)
    nobody = 65534
    if os.geteuid() == 0:
        os.chmod(tmp_path, 0o755)
        os.seteuid(nobody)
    try:
        if os.access(where, os.W_OK, effective_ids=True):
            pytest.skip("this user may write everywhere")
        with pytest.raises(SaveError, match="Choose a dirpath that this process can write"):
            L.Trainer(
                accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=1
            ).fit(Net(dirpath=where), loader(3))
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


def test_killed_run_goes_on_from_what_is_on_disk(tmp_path):
    """A real process, killed with SIGKILL in the middle of an epoch, run again by the same script."""
    script = HERE / "killed.py"
    output = tmp_path / "output"
    for dies_in, code in ((13, -signal.SIGKILL), (-1, 0)):
        process = forked.start(script, tmp_path, dies_in, output=output)
        process.join()
        assert process.exitcode == code, forked.errors_of(output).read_text()
        assert dies_in < 0 or files(tmp_path) == ["epoch_1_batch_4.ckpt"]
    assert output.read_text().split() == ["4", "5", "6", "7", "0", "1", "2", "3", "4", "5", "6", "7"]
