"""Commits of several processes, and of processes that are killed. Real processes, no torch in them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import checkpointable
from checkpointable.storage.commit import prepare

OLD = b"the old file, intact"

_BARE = f"""
import sys, types
from pathlib import Path
package = types.ModuleType("checkpointable")
package.__path__ = {[str(Path(checkpointable.__file__).parent)]!r}  # the real package, without running its front door
sys.modules["checkpointable"] = package
from checkpointable.storage.commit import commit, point

def say(word):
    print(word, flush=True)

def wait():
    return sys.stdin.readline()
"""

_SLOW_WRITER = """
def slow(file):
    file.write(b"x" * 100_000)
    file.flush()
    say("half")
    wait()
    file.write(b"x" * 100_000)

path = Path(sys.argv[1])
if sys.argv[2] == "commit":
    commit(path, slow, problem=lambda _: None, overwrite=True)
else:
    with open(path, "wb") as file:
        slow(file)
say("done")
"""

_CONTAINED = """
import os
os.getpid = lambda: int(sys.argv[2])

def stage(name):
    if sys.argv[3] == name:
        say(name)
        wait()

def fill(file):
    file.write(b"x" * 100_000)
    stage("fill")

commit(Path(sys.argv[1]), fill, problem=lambda _: stage("verify"), overwrite=True)
say("done")
"""

_RACER = """
def fill(file):
    file.write(sys.argv[2].encode() * 1000)

def ready(_):
    say("ready")
    wait()

def check_first(path):
    if path.exists():
        raise FileExistsError(path)
    commit(path, fill, problem=ready, overwrite=True)

for line in iter(sys.stdin.readline, ""):
    path = Path(line.strip())
    try:
        if sys.argv[1] == "commit":
            commit(path, fill, problem=ready, overwrite=False)
        else:
            check_first(path)
    except FileExistsError:
        say("taken")
    else:
        say("won")
"""


@contextlib.contextmanager
def process(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _BARE + script, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def tell(started: subprocess.Popen[str], word: object = "go") -> None:
    started.stdin.write(f"{word}\n")
    started.stdin.flush()


def hear(started: subprocess.Popen[str]) -> str:
    return started.stdout.readline().strip()


def killed_half_way(path: Path, how: str) -> None:
    with process(_SLOW_WRITER, path, how) as writer:
        assert hear(writer) == "half"
        writer.kill()
        writer.wait()


def temporaries(directory: Path) -> list[Path]:
    return sorted(directory.glob(".checkpointable-*"))


def test_commit_killed_while_writing_leaves_no_file_of_that_name(tmp_path):
    killed_half_way(tmp_path / "a.ckpt", "commit")
    assert not (tmp_path / "a.ckpt").exists()
    assert len(temporaries(tmp_path)) == 1


def test_commit_killed_while_writing_leaves_the_old_file_intact(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(OLD)
    killed_half_way(path, "commit")
    assert path.read_bytes() == OLD


def test_writing_in_place_killed_leaves_half_a_file(tmp_path):
    """The twin: what the commit protects from."""
    path = tmp_path / "a.ckpt"
    path.write_bytes(OLD)
    killed_half_way(path, "in place")
    assert path.read_bytes() == b"x" * 100_000


def test_commit_left_alone_finishes(tmp_path):
    with process(_SLOW_WRITER, tmp_path / "a.ckpt", "commit") as writer:
        assert hear(writer) == "half"
        tell(writer)
        assert hear(writer) == "done"
    assert (tmp_path / "a.ckpt").read_bytes() == b"x" * 200_000
    assert temporaries(tmp_path) == []


def test_prepare_deletes_what_a_dead_process_left(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(OLD)
    killed_half_way(path, "commit")
    assert len(temporaries(tmp_path)) == 1
    prepare(tmp_path)
    assert temporaries(tmp_path) == []
    assert path.read_bytes() == OLD


def test_prepare_leaves_the_temporary_of_a_living_process(tmp_path):
    with process(_SLOW_WRITER, tmp_path / "a.ckpt", "commit") as writer:
        assert hear(writer) == "half"
        prepare(tmp_path)
        assert len(temporaries(tmp_path)) == 1
        tell(writer)
        assert hear(writer) == "done"
    assert (tmp_path / "a.ckpt").read_bytes() == b"x" * 200_000


@pytest.mark.parametrize("moment", ["while it is written", "while it is verified"])
def test_prepare_leaves_the_temporary_of_a_process_of_another_container(tmp_path, moment):
    """It has the same host name, and there it has a number that here is a dead process's."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    path, stage = tmp_path / "a.ckpt", "fill" if moment == "while it is written" else "verify"
    with process(_CONTAINED, path, dead.pid, stage) as writer:
        assert hear(writer) == stage
        prepare(tmp_path)
        assert len(temporaries(tmp_path)) == 1
        tell(writer)
        assert hear(writer) == "done"
    assert path.read_bytes() == b"x" * 100_000
    with process(_CONTAINED, path, dead.pid, stage) as writer:
        assert hear(writer) == stage
        writer.kill()
        writer.wait()
    assert len(temporaries(tmp_path)) == 1
    prepare(tmp_path)
    assert temporaries(tmp_path) == []


def race(directory: Path, how: str, rounds: int) -> list[tuple[list[str], bytes]]:
    """Two processes commit to one name, both past the writing before either publishes."""
    outcomes = []
    with process(_RACER, how, "a") as first, process(_RACER, how, "b") as second:
        for number in range(rounds):
            path = directory / f"{number}.ckpt"
            for racer in (first, second):
                tell(racer, path)
            assert [hear(first), hear(second)] == ["ready", "ready"]
            for racer in (first, second):
                tell(racer)
            outcomes.append(([hear(first), hear(second)], path.read_bytes()))
    return outcomes


def test_commit_of_two_processes_to_one_name_lets_exactly_one_win(tmp_path):
    for said, content in race(tmp_path, "commit", rounds=40):
        assert sorted(said) == ["taken", "won"]
        assert content == (b"a" if said[0] == "won" else b"b") * 1000
    assert temporaries(tmp_path) == []


def test_checking_the_name_first_lets_both_win(tmp_path):
    """The twin: one of the two files is lost."""
    [(said, _)] = race(tmp_path, "check first", rounds=1)
    assert said == ["won", "won"]


_REPOINTER = """
import itertools, os
link, targets = Path(sys.argv[1]), [Path(sys.argv[2]), Path(sys.argv[3])]
say("ready")
for number in itertools.count():
    target = targets[number % 2]
    if sys.argv[4] == "point":
        point(link, target)
    else:
        link.unlink()
        link.symlink_to(target.name)
"""


def looks_at_a_moving_link(directory: Path, how: str, looks: int) -> list[bytes | None]:
    """What a reader finds behind a link that another process moves all the time; ``None`` where it finds nothing."""
    targets = [directory / "1.ckpt", directory / "2.ckpt"]
    for target in targets:
        target.write_bytes(target.name.encode())
    link = directory / "last.ckpt"
    link.symlink_to(targets[0].name)
    found: list[bytes | None] = []
    with process(_REPOINTER, link, *targets, how) as repointer:
        assert hear(repointer) == "ready"
        while repointer.poll() is None and (len(found) < looks or len(set(found) - {None}) < 2):
            try:
                found.append(link.read_bytes())
            except FileNotFoundError:
                found.append(None)
                if how != "point":
                    break
    return found


@pytest.mark.parametrize(("how", "absent"), [("point", False), ("unlink first", True)])
def test_link_that_moves_is_never_absent_unless_it_is_unlinked_first(tmp_path, how, absent):
    found = looks_at_a_moving_link(tmp_path, how, looks=3000 if how == "point" else 10**6)
    assert (None in found) is absent
    assert set(found) <= {b"1.ckpt", b"2.ckpt", None}
