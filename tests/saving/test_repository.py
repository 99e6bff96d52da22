"""The commit of the script that trains: read in the background, and never in the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from nets import Net, loader, trainer

from checkpointable import latest
from checkpointable.catalog.history import read_history
from checkpointable.saving import repository
from checkpointable.saving.repository import Repository, of_script

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(directory, *words):
    said = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", directory, *words],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull},
    )
    return said.stdout.strip()


@pytest.fixture
def cloned(tmp_path):
    """A repository with a script in a directory of it."""
    place = tmp_path / "code"
    (place / "below").mkdir(parents=True)
    (place / "below" / "train.py").write_text("first\n")
    git(place, "init", "-q")
    git(place, "add", ".")
    git(place, "commit", "-qm", "first")
    return place


@pytest.fixture
def script(monkeypatch, cloned):
    """As if that script were run."""
    monkeypatch.setattr(repository, "_KNOWN", {})
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(cloned / "below" / "train.py"), raising=False)
    return cloned / "below" / "train.py"


def read(directory):
    found = Repository()
    found.read(str(directory))
    return found.commit, found.is_dirty


def reading():
    return [thread for thread in threading.enumerate() if thread.name == "checkpointable-git"]


def test_commit_of_a_clean_tree_is_known_from_below_it(cloned):
    assert read(cloned / "below") == (git(cloned, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize("staged", [False, True])
def test_change_that_is_not_committed_makes_it_dirty(cloned, staged):
    (cloned / "below" / "train.py").write_text("second\n")
    if staged:
        git(cloned, "add", ".")
    assert read(cloned) == (git(cloned, "rev-parse", "HEAD"), True)


def test_file_that_git_does_not_know_does_not(cloned):
    (cloned / "runs").mkdir()
    (cloned / "runs" / "a.ckpt").write_text("")
    assert read(cloned)[1] is False


def test_nothing_of_the_repository_is_changed(cloned):
    os.utime(cloned / "below" / "train.py", (1, 1))  # git would refresh its index
    before = (cloned / ".git" / "index").read_bytes()
    read(cloned)
    assert (cloned / ".git" / "index").read_bytes() == before


def test_repository_without_a_commit_or_none_at_all_is_unknown(tmp_path):
    assert read(tmp_path) == (None, None)
    git(tmp_path, "init", "-q")
    assert read(tmp_path) == (None, None)
    assert read(tmp_path / "missing") == (None, None)


def test_repository_of_the_script_counts_where_a_hook_of_another_one_runs_it(cloned, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    found = read(cloned)
    monkeypatch.delenv("GIT_DIR")
    assert found == (git(cloned, "rev-parse", "HEAD"), False)


def test_machine_without_git_knows_nothing(cloned, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read(cloned) == (None, None)


@pytest.fixture
def hanging(tmp_path, monkeypatch, cloned):  # the repository is made by one that answers
    """A git that never answers."""
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec {shutil.which('sleep')} 3600\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    yield
    for thread in reading():
        while thread.is_alive() and not (tmp_path / "pid").exists():
            thread.join(0.1)
        if thread.is_alive():
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        thread.join()


@pytest.mark.usefixtures("hanging")
def test_git_that_hangs_is_given_up(cloned, monkeypatch):
    monkeypatch.setattr(repository, "_SECONDS", 0.2)
    assert read(cloned) == (None, None)


@pytest.mark.usefixtures("hanging", "script")
def test_training_does_not_wait_for_a_git_that_hangs(tmp_path):
    trainer(tmp_path).fit(Net(dirpath=tmp_path / "runs"), loader(3), loader(2))
    assert [thread.is_alive() for thread in reading()] == [True]
    (session,) = read_history(latest(tmp_path / "runs")).sessions
    assert (session.commit, session.is_dirty, session.ended) == (None, None, "finished")


def test_files_of_a_run_have_the_commit_once_it_is_known(tmp_path, cloned, script):
    class Waiting(Net):
        def on_train_start(self):
            for thread in reading():
                thread.join()

    script.write_text("changed\n")
    trainer(tmp_path).fit(Waiting(dirpath=tmp_path / "runs"), loader(3), loader(2))
    (session,) = read_history(latest(tmp_path / "runs")).sessions
    assert (session.commit, session.is_dirty) == (git(cloned, "rev-parse", "HEAD"), True)


def test_repository_is_read_once_in_a_process(script):
    assert of_script() is of_script()
    for thread in reading():
        thread.join()


def test_notebook_has_no_script_and_nothing_is_read(tmp_path, monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(repository, "_KNOWN", {})
    trainer(tmp_path).fit(Net(dirpath=tmp_path), loader(3), loader(2))
    (session,) = read_history(latest(tmp_path)).sessions
    assert session.commit is None
    assert repository._KNOWN == {}
