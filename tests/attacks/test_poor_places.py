"""Places that lack something: file systems without links, a process without room for a second copy of its state."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections import namedtuple

import pytest
from attacks.programs import told
from invariants import assert_whole
from nets import Net, files, links, loader, trainer

from checkpointable import SaveError, latest
from checkpointable.storage import commit

Usage = namedtuple("Usage", "total used free")
WITHOUT = [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS]


def refusing(code):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code), str(args[1]))

    return refuse


@pytest.mark.parametrize("code", WITHOUT, ids=errno.errorcode.get)
def test_file_system_without_hard_links_saves_all_the_same(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "link", refusing(code))
    with told() as messages:
        trainer(tmp_path).fit(Net(dirpath=tmp_path, save_interval=2), loader(5))
    assert messages == []
    assert files(tmp_path) == ["epoch_0_batch_5.ckpt"]
    assert_whole(tmp_path)


def test_file_system_without_hard_links_overwrites_no_file_of_another_run(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    trainer(tmp_path).fit(Net(dirpath=tmp_path), loader(2))
    before = (tmp_path / "epoch_0_batch_2.ckpt").read_bytes()
    trainer(tmp_path).fit(Net(dirpath=tmp_path), loader(2))
    assert files(tmp_path) == ["epoch_0_batch_2-v1.ckpt", "epoch_0_batch_2.ckpt"]
    assert (tmp_path / "epoch_0_batch_2.ckpt").read_bytes() == before


@pytest.mark.parametrize("code", WITHOUT, ids=errno.errorcode.get)
def test_file_system_without_symbolic_links_gets_copies_that_verify(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "symlink", refusing(code))
    net = Net(dirpath=tmp_path, save_interval=2)
    with told() as messages:
        trainer(tmp_path, max_epochs=2).fit(net, loader(5), loader(1))
    assert messages == []
    assert links(tmp_path) == {}
    best, last = (os.path.basename(path) for path in (net.best_model_path, net.last_model_path))
    assert set(files(tmp_path)) == {"last.ckpt", "best.ckpt", best, last, "epoch_1_batch_4.ckpt"}
    assert (tmp_path / "last.ckpt").read_bytes() == (tmp_path / last).read_bytes()
    assert (tmp_path / "best.ckpt").read_bytes() == (tmp_path / best).read_bytes()
    assert_whole(tmp_path)


def test_file_system_without_symbolic_links_is_resumed_from_and_goes_on_without_litter(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "symlink", refusing(errno.EPERM))
    trainer(tmp_path).fit(Net(dirpath=tmp_path, save_interval=2), loader(5))
    assert os.path.basename(latest(tmp_path)) in ("last.ckpt", "epoch_0_batch_5.ckpt")
    net = Net(dirpath=tmp_path, save_interval=2)
    trainer(tmp_path, max_epochs=3).fit(net, loader(5), ckpt_path=latest(tmp_path))
    assert_whole(tmp_path)
    assert set(files(tmp_path)) - {"last.ckpt"} <= {"epoch_0_batch_5.ckpt", "epoch_2_batch_5.ckpt"}
    assert (tmp_path / "last.ckpt").read_bytes() == (tmp_path / "epoch_2_batch_5.ckpt").read_bytes()


needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
HEAVY = "attacks.programs:with_little_memory"


@needs_proc
def test_process_without_room_for_a_second_copy_saves_while_training_waits(forge, place):
    ended = forge.run(HEAVY, where=str(place), room=48 << 20)
    assert ended.code == 0, ended.errors
    assert len(ended.result) >= 1
    assert all("not enough memory for a copy of" in it and "training waits for this save" in it for it in ended.result)
    assert files(place) == ["epoch_0_batch_5.ckpt"]
    assert_whole(place)


@needs_proc
def test_process_with_room_for_one_copy_saves_in_the_background(forge, place):
    ended = forge.run(HEAVY, where=str(place), room=512 << 20)  # address space: each thread of torch takes some, too
    assert ended.code == 0, ended.errors
    assert ended.result == []
    assert files(place) == ["epoch_0_batch_5.ckpt"]


@pytest.fixture
def without_synced_names(monkeypatch):
    """As SMB, older CIFS, and Windows' drives in WSL: files can be synced, directories cannot."""
    real, codes = os.fsync, [errno.EINVAL]

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(codes[0], os.strerror(codes[0]))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(commit, "_UNSYNCED", set())
    return codes


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO], ids=errno.errorcode.get)
def test_directory_that_cannot_be_synced_is_said_once_and_saved_in(tmp_path, without_synced_names, code):
    without_synced_names[:] = [code]
    net = Net(dirpath=tmp_path / "new" / "runs", save_interval=1)
    with told() as messages:
        trainer(tmp_path).fit(net, loader(8))
    (message,) = messages
    assert "cannot make the names of files durable" in message
    assert files(tmp_path / "new" / "runs") == ["epoch_0_batch_8.ckpt"]
    assert links(tmp_path / "new" / "runs") == {"last.ckpt": "epoch_0_batch_8.ckpt"}
    assert latest(tmp_path / "new" / "runs") == net.last_model_path


def test_directory_that_stops_being_synced_costs_no_file_and_is_said_each_time(
    tmp_path, without_synced_names, monkeypatch
):
    """It is no property of the place then. The files are on the list of those that are kept."""
    monkeypatch.setattr(commit, "_find_out_whether_names_sync", lambda directory: None)  # so it is seen later
    with told() as messages:
        trainer(tmp_path).fit(Net(dirpath=tmp_path, save_interval=2), loader(5))
    assert len([message for message in messages if "its name is not durable" in message]) == 3
    assert files(tmp_path) == ["epoch_0_batch_5.ckpt"]


def untold(path):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_file_system_that_does_not_tell_its_room_is_saved_in(tmp_path, monkeypatch):
    """``statvfs`` gives zeros there, or fails, as with FUSE."""
    for number, usage in enumerate([lambda _: Usage(0, 0, 0), untold]):
        monkeypatch.setattr(shutil, "disk_usage", usage)
        where = tmp_path / str(number)
        with told() as messages:
            trainer(tmp_path).fit(Net(dirpath=where, save_interval=2), loader(5))
        assert messages == []
        assert files(where) == ["epoch_0_batch_5.ckpt"]


def test_file_system_that_tells_of_no_room_is_believed(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 0))
    with told(), pytest.raises(SaveError, match="no room in"):
        trainer(tmp_path).fit(Net(dirpath=tmp_path, save_interval=2), loader(5))
