"""What user code changes in a validation that is cut short: buffers as before it, other values not called exact."""

from __future__ import annotations

import signal

import pytest
import torch
from nets import Net, files, load, loader, trainer

from checkpointable import CheckpointableWarning
from checkpointable.catalog.info import read_info


def the_file(where):
    """The file that holds the state before the validation."""
    (name,) = [name for name in files(where) if not name.startswith("best")]
    assert load(where / name)["checkpointable"]["before_validation"]
    return where / name


class Counting(Net):
    """Counts the batches of validations in a buffer, and in a number that it saves."""

    def __init__(self, **options):
        super().__init__(**options)
        self.register_buffer("count", torch.zeros(1 << 23 if self.big else 1))
        self.number = 0

    big = False

    def validation_step(self, batch, batch_idx):
        self.count += 1
        self.number += 1
        if self.number == 6:  # in the second validation; a callback that sends it has hooks, before which all is copied
            signal.raise_signal(signal.SIGTERM)
        return super().validation_step(batch, batch_idx)


class SavingIt(Counting):
    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        checkpoint["number"] = self.number


class Big(Counting):
    big = True


def cut(where, made):
    net = made(dirpath=where, strict_resume=True)
    options = {"max_epochs": 2, "val_check_interval": 3, "num_sanity_val_steps": 0}
    with pytest.raises(SystemExit):
        trainer(where, **options).fit(net, loader(6), loader(4, seed=9))


def test_buffers_that_the_validation_changes_are_those_before_it(tmp_path):
    cut(tmp_path, Counting)
    saved = load(the_file(tmp_path))
    assert saved["state_dict"]["count"].tolist() == [4.0]
    assert read_info(the_file(tmp_path)).exactness == "exact"


def test_big_buffers_that_the_validation_changes_are_not_saved_as_those_before_it(tmp_path):
    with pytest.warns(CheckpointableWarning, match="has changed weights or buffers"):
        cut(tmp_path, Big)
    assert not any(load(tmp_path / name)["checkpointable"]["before_validation"] for name in files(tmp_path))


def test_what_user_code_adds_to_the_file_is_approximate_in_the_middle_of_a_validation(tmp_path):
    cut(tmp_path, SavingIt)
    assert "what your code adds to a checkpoint" in read_info(the_file(tmp_path)).exactness
