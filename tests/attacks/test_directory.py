"""What may happen to the directory while a training saves in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from attacks.programs import At, Settled, told
from invariants import assert_whole
from nets import Net, files, links, load, loader, trainer

from checkpointable import SaveError, latest


def fit(net, root, things, *, batches=9, **options):
    with told() as messages:
        trainer(root, callbacks=[Settled(), At(things)], **options).fit(net, loader(batches))
    return messages


@pytest.fixture
def open_directory():
    """One that every user can get to."""
    place = Path(tempfile.mkdtemp(prefix="attacked-"))
    place.chmod(0o755)
    yield place
    place.chmod(0o755)
    shutil.rmtree(place)


def test_permission_taken_away_and_given_back_costs_the_saves_between(forge, open_directory):
    ended = forge.run("attacks.programs:locked", where=str(open_directory), lock_at=4, unlock_at=8, batches=9)
    assert ended.code == 0, ended.errors
    assert len(ended.result) == 2
    for message, batch in zip(ended.result, (4, 6), strict=True):
        assert f"the state after epoch 0, batch {batch}" in message
        assert "Permission denied" in message
        assert "the next save tries again" in message
    assert files(open_directory) == ["epoch_0_batch_2.ckpt", "epoch_0_batch_8.ckpt", "epoch_0_batch_9.ckpt"]
    assert_whole(open_directory)


def test_directory_deleted_with_a_save_under_way_is_made_again(tmp_path):
    where = tmp_path / "saved"
    net = Net(dirpath=where, save_interval=2, save_last_k=2)
    messages = fit(net, tmp_path, {3: lambda: shutil.rmtree(where)}, batches=5)
    [message] = messages
    assert f"checkpoints of this run are gone: {where / 'epoch_0_batch_2.ckpt'}" in message
    assert files(where) == ["epoch_0_batch_4.ckpt", "epoch_0_batch_5.ckpt"]
    assert links(where) == {"last.ckpt": "epoch_0_batch_5.ckpt"}


def test_directory_deleted_again_and_again_while_files_are_written_never_stops_training(tmp_path):
    where = tmp_path / "saved"

    class Deleting(Net):
        def training_step(self, batch, batch_idx):
            shutil.rmtree(where, ignore_errors=True)
            return super().training_step(batch, batch_idx)

    with told() as messages:
        trainer(tmp_path).fit(Deleting(dirpath=where, save_interval=1), loader(40))
    assert all("deleted" in message or "was not saved" in message for message in messages)
    assert latest(where) == str(where / "epoch_0_batch_40.ckpt")


def test_directory_moved_away_keeps_its_files_and_a_new_one_is_begun(tmp_path):
    where, moved = tmp_path / "saved", tmp_path / "moved"
    net = Net(dirpath=where, save_interval=2)
    messages = fit(net, tmp_path, {5: lambda: where.rename(moved)}, batches=7)
    assert len(messages) == 1
    assert files(moved) == ["epoch_0_batch_4.ckpt"]
    assert links(moved) == {"last.ckpt": "epoch_0_batch_4.ckpt"}
    assert files(where) == ["epoch_0_batch_7.ckpt"]
    assert_whole(where)
    assert_whole(moved)


def test_file_in_the_place_of_the_directory_is_said_and_training_goes_on(tmp_path):
    where = tmp_path / "saved"

    def put_a_file_there() -> None:
        shutil.rmtree(where)
        where.write_text("in the way")

    net = Net(dirpath=where, save_interval=2)
    messages = fit(net, tmp_path, {3: put_a_file_there, 5: where.unlink}, batches=7)
    assert sum("was not saved" in message for message in messages) == 1
    assert files(where) == ["epoch_0_batch_7.ckpt"]


def test_disk_that_turns_read_only_is_said_and_the_last_save_raises(tmp_path, small_disk):
    disk = small_disk(4 << 20)

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)

    def make_read_only(net: Net) -> None:
        net._checkpointing.recorder.close()  # mount refuses while a file there is open for writing
        remount("ro")

    net = Net(dirpath=disk, save_interval=2, save_last_k=-1)
    messages = fit(net, tmp_path, {4: lambda: make_read_only(net), 6: lambda: remount("rw")}, batches=7)
    assert len(messages) == 1
    assert "Read-only file system" in messages[0]
    assert files(disk) == ["epoch_0_batch_2.ckpt", "epoch_0_batch_6.ckpt", "epoch_0_batch_7.ckpt"]
    net = Net(dirpath=disk, save_interval=4)
    with pytest.raises(SaveError, match=r"Read-only file system.*Older checkpoints are untouched"):
        fit(net, tmp_path, {3: lambda: make_read_only(net)}, batches=3)
    assert_whole(disk)


def test_place_for_a_file_taken_by_a_directory_is_passed_by(tmp_path):
    (tmp_path / "epoch_0_batch_2.ckpt").mkdir()
    net = Net(dirpath=tmp_path, save_interval=2)
    trainer(tmp_path).fit(net, loader(2))
    assert Path(net.last_model_path).name == "epoch_0_batch_2-v1.ckpt"
    assert latest(tmp_path) == net.last_model_path
    assert load(tmp_path / "last.ckpt")["state_dict"].keys() == net.state_dict().keys()


def test_best_link_taken_by_a_directory_is_said_and_the_file_is_safe(tmp_path):
    (tmp_path / "last.ckpt").mkdir()
    net = Net(dirpath=tmp_path)
    with told():
        trainer(tmp_path).fit(net, loader(2))
    assert latest(tmp_path) == net.last_model_path
    assert os.path.isdir(tmp_path / "last.ckpt")
    assert links(tmp_path) == {"last-v1.ckpt": "epoch_0_batch_2.ckpt"}
