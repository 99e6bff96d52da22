"""A fit that is given a damaged file to resume from."""

from __future__ import annotations

from pathlib import Path

import pytest
from nets import Net, files, loader, trainer

from checkpointable import CheckpointableWarning, CheckpointFileError


def trained(directory: Path) -> Net:
    net = Net(dirpath=directory, save_interval=2, save_last_k=-1, save_top_k=0)
    trainer(directory, max_epochs=1).fit(net, loader(8))
    return net


def damage(path: Path) -> None:
    """Change more bytes in the middle than fill the space between two members, which no checksum covers."""
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + 200)
    data[middle] = bytes(byte ^ 1 for byte in data[middle])
    path.write_bytes(data)


def test_resume_from_a_damaged_file_uses_the_newest_intact_one_and_names_both(tmp_path):
    trained(tmp_path)
    assert files(tmp_path) == [f"epoch_0_batch_{batch}.ckpt" for batch in (2, 4, 6, 8)]
    damage(tmp_path / "epoch_0_batch_8.ckpt")
    net, t = Net(dirpath=tmp_path / "on"), trainer(tmp_path, max_epochs=2)
    with pytest.warns(CheckpointableWarning, match=r"epoch_0_batch_8\.ckpt: .*changed.* from .*epoch_0_batch_6\.ckpt"):
        t.fit(net, loader(8), ckpt_path=tmp_path / "epoch_0_batch_8.ckpt")
    assert t.global_step == 16
    assert t.ckpt_path == str(tmp_path / "epoch_0_batch_6.ckpt")


def test_resume_from_a_damaged_file_without_an_intact_one_is_refused(tmp_path):
    trained(tmp_path)
    for path in tmp_path.glob("*.ckpt"):
        if not path.is_symlink():
            damage(path)
    with pytest.raises(CheckpointFileError, match=r"cannot load .*epoch_0_batch_8\.ckpt.*\nResume from another file"):
        trainer(tmp_path, max_epochs=2).fit(Net(), loader(8), ckpt_path=tmp_path / "epoch_0_batch_8.ckpt")


def test_testing_a_damaged_file_is_refused_even_with_an_intact_one_in_its_directory(tmp_path):
    trained(tmp_path)
    damage(tmp_path / "epoch_0_batch_8.ckpt")
    with pytest.raises(CheckpointFileError, match=r"cannot load .*epoch_0_batch_8\.ckpt"):
        trainer(tmp_path).test(Net(), loader(2), ckpt_path=tmp_path / "epoch_0_batch_8.ckpt")


def test_resume_from_a_missing_file_is_refused(tmp_path):
    trained(tmp_path)
    with pytest.raises(FileNotFoundError):
        trainer(tmp_path, max_epochs=2).fit(Net(), loader(8), ckpt_path=tmp_path / "epoch_7.ckpt")
