"""A fit that is given a damaged file to resume from."""

from __future__ import annotations

from pathlib import Path

import pytest
from nets import Net, files, loader, trainer

from checkpointable import CheckpointableWarning, CheckpointFileError, latest
from checkpointable.storage.format import archive, zip_layout


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


def rewrite(path: Path, content: bytes) -> None:
    """Another content of the pickle, in a file whose every byte is as we write it."""
    told = archive.read_metadata(path)
    members = {"data.pkl": content, "version": b"3\n", zip_layout.ID: bytes(40), archive.MEMBER: archive.encode(told)}
    places = zip_layout.lay_out([(name, len(data)) for name, data in members.items()], alignment=64)
    path.write_bytes(b"".join(zip_layout.pieces(places, list(members.values()), sealed=True)))


REFUSED = [b"", b"\x80\x02garbage", b"\x80\x02K\x01.", b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01cmine\nmine\nq\x02s"]


@pytest.mark.parametrize("content", REFUSED, ids=["empty", "garbage", "a number", "cut"])
def test_file_that_verifies_and_that_torch_refuses_is_passed_over_by_name(tmp_path, content):
    trained(tmp_path)
    for batch in (6, 8):
        rewrite(tmp_path / f"epoch_0_batch_{batch}.ckpt", content)
    path = latest(tmp_path)
    assert path == str(tmp_path / "epoch_0_batch_8.ckpt"), "its bytes are as they were written"
    t = trainer(tmp_path, max_epochs=2)
    with pytest.warns(CheckpointableWarning, match=r"cannot load .*epoch_0_batch_8\.ckpt: .* from .*epoch_0_batch_4"):
        t.fit(Net(dirpath=tmp_path / "on"), loader(8), ckpt_path=path)
    assert t.global_step == 16
    with pytest.raises(CheckpointFileError, match=r"torch refuses it|no checkpoint"):
        trainer(tmp_path).validate(Net(), loader(8), ckpt_path=path)
