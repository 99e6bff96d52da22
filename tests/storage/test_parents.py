"""The directories above a file are durable, too, whoever has made them."""

from __future__ import annotations

import os

import pytest

from checkpointable.storage.commit import commit, prepare


@pytest.fixture
def synced(monkeypatch):
    """The paths that are synced."""
    real, paths = os.fsync, []

    def fsync(descriptor):
        paths.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


def test_prepare_makes_the_directories_durable_that_others_have_made(tmp_path, synced):
    """As a logger has, of which nobody knows whether they were synced."""
    (tmp_path / "logs" / "version_0").mkdir(parents=True)
    prepare(tmp_path / "logs" / "version_0" / "checkpoints")
    assert {str(tmp_path / "logs" / "version_0"), str(tmp_path / "logs"), str(tmp_path)} <= set(synced)


def test_first_file_in_a_directory_of_others_makes_that_directory_durable_once(tmp_path, synced):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x", "y"):
        synced.clear()
        commit(tmp_path / "a" / "b" / name, lambda file: None, problem=lambda path: None, overwrite=False)
        assert ({str(tmp_path), str(tmp_path / "a")} <= set(synced)) == (name == "x")


@pytest.mark.parametrize("below", [True, False])
def test_prepare_makes_the_names_durable_that_a_killed_process_has_left_below(tmp_path, synced, below):
    """The run may resume from such a file, and delete those that are older."""
    folder = tmp_path / "epoch_0"
    folder.mkdir()
    (folder / "batch_1.ckpt").touch()
    prepare(tmp_path, below=below)
    assert (str(folder) in synced) == below
