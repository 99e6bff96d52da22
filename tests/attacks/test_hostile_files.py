"""Files that somebody has made to run code, or damaged: refused, and said."""

from __future__ import annotations

import os
import shutil
import warnings

import pytest
import torch
from catalog.conftest import metadata
from nets import Net, load, loader, trainer, write_archive

from checkpointable import CheckpointableWarning, best, latest
from checkpointable.catalog.info import read_info
from checkpointable.storage.format import archive, verify


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, touched) -> None:
        self.touched = touched

    def __reduce__(self):
        return os.system, (f"touch {self.touched}",)


@pytest.fixture
def evil(tmp_path):
    """A file in our name, whole in every byte, that touches another file when it is unpickled."""
    path, touched = tmp_path / "epoch_0_batch_2.ckpt", tmp_path / "touched"
    trainer(tmp_path).fit(Net(dirpath=tmp_path), loader(2))
    content = {**load(path), "evil": Evil(touched)}
    told = content["checkpointable"]["metadata"]
    path.unlink()
    with open(path, "x+b") as file:
        write_archive(content, file, {**metadata(), **told})
    return path, touched


def test_file_that_runs_code_when_unpickled_is_found_and_not_run(evil, tmp_path):
    path, touched = evil
    assert latest(tmp_path) == str(path), "its bytes are whole, and they are all that this looks at"
    assert best(tmp_path) is None
    assert not touched.exists()


def test_file_that_runs_code_when_unpickled_is_resumed_by_fit_and_not_run(evil, tmp_path):
    _, touched = evil
    net = Net(dirpath=tmp_path)
    trainer(tmp_path, max_epochs=2).fit(net, loader(2), ckpt_path=latest(tmp_path))
    assert read_info(net.last_model_path).epoch == 1
    assert not touched.exists()


def test_file_that_runs_code_does_so_for_whoever_asks_for_it(evil, tmp_path):
    """The twin: the file is as bad as it is said to be."""
    path, touched = evil
    torch.load(path, weights_only=False)
    assert touched.exists()


@pytest.fixture
def small(tmp_path):
    """A small file as ours are, and its bytes."""
    path = tmp_path / "small.ckpt"
    with open(path, "x+b") as file:
        write_archive({"state_dict": {"weight": torch.arange(5.0)}, "epoch": 3}, file, metadata(batch=2, batches=2))
    return path, path.read_bytes()


def assert_found_or_harmless(path, whole) -> bool:
    """Whether the damage was found. If not, what is read is what was written."""
    if verify.problem(path) is not None:
        return True
    read = load(path)
    assert read["epoch"] == 3
    assert read["state_dict"]["weight"].equal(torch.arange(5.0))
    assert archive.read_metadata(path) == metadata(batch=2, batches=2)
    return False


def flips(path, whole, every):
    found = 0
    for bit in range(0, 8 * len(whole), every):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        found += assert_found_or_harmless(path, whole)
    return found


def test_flipped_bit_anywhere_is_found_or_harmless(small):
    path, whole = small
    assert flips(path, whole, every=31) > 0.2 * 8 * len(whole) / 31


@pytest.mark.sweep
def test_sweep_every_flipped_bit_is_found_or_harmless(small):
    path, whole = small
    assert flips(path, whole, every=1) > 0.2 * 8 * len(whole)


DAMAGE = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 3),
    "empty": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "text": lambda path: path.write_text("these are no weights"),
    "link to itself": lambda path: (path.unlink(), path.symlink_to(path)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_newest_of_a_run_that_is_damaged_is_named_and_training_goes_on_from_the_one_before(tmp_path, damage):
    trainer(tmp_path).fit(Net(dirpath=tmp_path, save_interval=2, save_last_k=2), loader(4))
    newest = tmp_path / "epoch_0_batch_4.ckpt"
    DAMAGE[damage](newest)
    net = Net(dirpath=tmp_path)
    if damage == "link to itself":
        ckpt_path = latest(tmp_path)  # links are passed over without a word
    else:
        with pytest.warns(CheckpointableWarning, match=f"skipped {newest}: .*is .*epoch_0_batch_2.ckpt. Replace"):
            ckpt_path = latest(tmp_path)
    assert ckpt_path == str(tmp_path / "epoch_0_batch_2.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointableWarning)
        trainer(tmp_path).fit(net, loader(4), ckpt_path=ckpt_path)
    assert read_info(net.last_model_path).at.batch == 4
    assert latest(tmp_path) == net.last_model_path


def test_directory_in_the_name_of_a_checkpoint_is_no_checkpoint(tmp_path):
    trainer(tmp_path).fit(Net(dirpath=tmp_path), loader(2))
    shards = tmp_path / "epoch_0_batch_4.ckpt"
    shards.mkdir()
    (shards / "shard_0").write_bytes(b"half of a sharded save, without its marker")
    assert latest(tmp_path) == str(tmp_path / "epoch_0_batch_2.ckpt")
    shutil.rmtree(shards)
