"""LightningCLI: our arguments in a configuration."""

from __future__ import annotations

import sys

import pytest
import torch
from nets import Net, files, loader

from checkpointable import CheckpointingModule


class CliNet(CheckpointingModule):
    """Takes an argument of its own and passes ours on."""

    compute_loss = Net.compute_loss

    def __init__(self, width: int = 2, **options):
        super().__init__(**options)
        self.layer = torch.nn.Linear(2, width)

    def train_dataloader(self):
        return loader(4)

    def val_dataloader(self):
        return loader(1)


class Direct(CheckpointingModule):
    """Takes nothing of its own."""

    def compute_loss(self, batch):
        raise AssertionError


@pytest.mark.filterwarnings("ignore")
def test_class_path_with_our_arguments_is_built_and_trained(tmp_path, monkeypatch):
    from lightning.pytorch.cli import LightningCLI

    arguments = [
        *("fit", "--model=" + __name__ + ".CliNet", "--model.width=3", "--model.save_interval=2"),
        *("--model.train_time_interval=null", "--model.save_last_k=-1", f"--model.dirpath={tmp_path}"),
        *("--trainer.max_epochs=1", "--trainer.logger=false", "--trainer.enable_progress_bar=false"),
        *("--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"),
    ]
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    cli = LightningCLI(CheckpointingModule, subclass_mode_model=True, seed_everything_default=0)
    assert cli.model.save_interval == 2
    assert files(tmp_path) == ["best_val_loss_epoch_0.ckpt", "epoch_0_batch_2.ckpt"]


@pytest.mark.filterwarnings("ignore")
def test_every_argument_is_known_to_the_command_line(capsys, monkeypatch):
    from lightning.pytorch.cli import LightningCLI

    monkeypatch.setattr(sys, "argv", ["train.py", "fit", "--help"])
    with pytest.raises(SystemExit):
        LightningCLI(Direct, run=True)
    shown = capsys.readouterr().out
    assert "--model.save_interval" in shown
    assert "--model.best_filename" in shown
    assert "--model.learning_rate" in shown
