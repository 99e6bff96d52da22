"""LightningCLI: our arguments in a configuration."""

from __future__ import annotations

import sys
from datetime import timedelta

import pytest
import torch
from nets import Net, files, loader

from checkpointable import CheckpointingModule
from checkpointable.policy.options import Options


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


CONFIGURATION = """
save_interval: {save_interval}
train_time_interval: {train_time_interval}
mode: {mode}
dirpath: {dirpath}
patience: null
save_on_train_epoch_end: true
overhead_budget: 1e-2
"""


def parsed(*, from_file, **given):
    """Our arguments, parsed from a configuration file or from the command line."""
    from jsonargparse import ArgumentParser

    values = {"save_interval": "auto", "train_time_interval": "00:05:00", "mode": "max", "dirpath": "runs", **given}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(CheckpointingModule)
    if from_file:
        return parser.parse_string(CONFIGURATION.format(**values))
    return parser.parse_args([f"--{name}={value}" for name, value in values.items()])


@pytest.mark.parametrize("from_file", [True, False])
def test_arguments_of_every_kind_are_parsed_to_their_types(from_file):
    found = parsed(from_file=from_file)
    assert found.train_time_interval == timedelta(minutes=5)
    assert (found.save_interval, found.mode, str(found.dirpath)) == ("auto", "max", "runs")
    assert parsed(from_file=from_file, save_interval=20).save_interval == 20
    assert parsed(from_file=from_file, train_time_interval="1 day, 2:00:00").train_time_interval == timedelta(hours=26)
    Options(**{name: value for name, value in vars(found).items() if name in Options.__dataclass_fields__})


@pytest.mark.parametrize("from_file", [True, False])
@pytest.mark.parametrize("wrong", [{"save_interval": "abc"}, {"mode": "best"}, {"train_time_interval": "soon"}])
def test_argument_of_another_type_is_refused_by_the_parser(from_file, wrong):
    from jsonargparse import ArgumentError

    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        parsed(from_file=from_file, **wrong)
