"""What ``doctor`` says of a local directory, and that it changes nothing there."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from catalog.conftest import DAMAGE
from storage.test_probes import in_memory, of, tree

from checkpointable import PolicyError, doctor
from checkpointable.catalog import directory_report, leftovers
from checkpointable.catalog.traces import Label
from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.storage import mounts, probes, remote_probes
from checkpointable.storage.format.shards import MARKER
from checkpointable.storage.ring_file import RingFile

Usage = namedtuple("Usage", "total used free")
NOBODY = 65534


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Where what is tried out takes little time."""
    with in_memory(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    child.wait()
    return child.pid


def leftover(directory: Path, process: int, host: str | None = None) -> Path:
    path = directory / f"{TEMPORARY_PREFIX}{host or socket.gethostname()}-{process}-0a.tmp"
    path.write_bytes(b"half")
    return path


def whats(findings) -> set[str]:
    return {finding.what for finding in findings}


def test_directory_in_order_has_no_problem_and_is_not_changed(make, tmp_path):
    newest = make("runs/b.ckpt", batch=2)
    make("runs/a.ckpt", batch=1)
    (tmp_path / "runs" / "last.ckpt").symlink_to("b.ckpt")
    before = tree(tmp_path)
    found = doctor(tmp_path / "runs")
    assert tree(tmp_path) == before
    assert found.problems == []
    assert of("checkpoints", found).detail == "2 intact, each read to its end."
    assert f"the newest checkpoint has {os.path.getsize(newest):,} bytes" in of("free room", found).detail
    assert of("quota", found).outcome == "unknown"
    first, *lines = repr(found).splitlines()
    assert first.startswith(f"{tmp_path / 'runs'}: ")
    assert len(lines) == len(found) == len(json.loads(json.dumps(found.to_dicts())))


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_file_is_a_problem_with_its_reason_and_cure(make, tmp_path, kind):
    damage, reason = DAMAGE[kind]
    make("a.ckpt")
    path = make("below/b.ckpt", batch=1)
    damage(path)
    before = tree(tmp_path)
    found = doctor(tmp_path)
    (problem,) = found.problems
    assert problem.what == "damaged file"
    assert re.match(f"{path}: .*{reason}.* latest and best pass it over", problem.detail)
    assert problem.cure == "Delete it, or put an intact copy in its place."
    assert of("checkpoints", found).detail == "1 intact, each read to its end."
    assert tree(tmp_path) == before


def test_link_that_leads_nowhere_is_a_warning(make, tmp_path):
    make("a.ckpt")
    (tmp_path / "last.ckpt").symlink_to("a.ckpt")
    (tmp_path / "best.ckpt").symlink_to("gone.ckpt")
    found = of("link that leads nowhere", doctor(tmp_path))
    assert (found.outcome, found.detail) == ("warning", f"{tmp_path}/best.ckpt links to gone.ckpt, which is not there.")
    assert found.cure.startswith("Delete it, or put the file back")


def test_leftovers_of_dead_processes_are_a_warning_and_stay(tmp_path, dead):
    (tmp_path / "below").mkdir()
    paths = [leftover(tmp_path, dead), leftover(tmp_path / "below", dead)]
    old = leftover(tmp_path, 1, "elsewhere")
    os.utime(old, (time.time() - 90000,) * 2)
    found = of("temporary files", doctor(tmp_path))
    assert (found.outcome, found.detail.partition(":")[0]) == ("warning", "3 of dead processes")
    for path in (*paths, old):
        assert str(path) in found.detail
        assert path.exists()
    assert "The next fit that saves there deletes them" in found.cure


def test_temporary_files_of_living_processes_are_no_leftovers(tmp_path):
    leftover(tmp_path, 1, "elsewhere")
    with open(leftover(tmp_path, 1), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "temporary files" not in whats(doctor(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_another_user_has_made_is_unknown_or_a_problem(make, tmp_path, dead):
    make("runs/a.ckpt")
    denied = make("runs/b.ckpt", batch=1)
    (tmp_path / "runs" / "private").mkdir()
    left = leftover(tmp_path / "runs", dead)
    for path in (left, Path(denied), tmp_path / "runs" / "private"):
        path.chmod(0)
    for path in (tmp_path, *(tmp_path.parents[:2] if tmp_path.is_relative_to(tempfile.gettempdir()) else ())):
        path.chmod(0o755)
    try:
        os.seteuid(NOBODY)
        found, above = doctor(tmp_path / "runs"), doctor(tmp_path / "runs" / "private")
        (below,) = doctor(tmp_path / "runs" / "private" / "there")
    finally:
        os.seteuid(0)
    assert "Permission denied" in of("writing", found).detail
    assert of("file that cannot be read", found).detail.startswith(f"{denied}: cannot be opened: ")
    assert of("file that cannot be read", found).cure == "Give this process the right to read it."
    unlisted = of("directory that cannot be listed", found)
    assert unlisted.detail.startswith(f"{tmp_path}/runs/private: Permission denied. ")
    assert unlisted.cure == "Give this process the right to list it."
    temporaries = of("temporary files", found)
    assert (temporaries.outcome, str(left) in temporaries.detail) == ("unknown", True)
    assert of("directory that cannot be listed", above).outcome == "problem"
    assert re.fullmatch(r"whether \S+private/there is there cannot be seen: Permission denied\.", below.detail)
    assert below.cure == "Give this process the right to reach it, or choose another dirpath."


def trace(directory: Path, attempt: str, run_id: str) -> RingFile:
    path = str(directory / f"{TEMPORARY_PREFIX}{attempt}-0.trace")
    return RingFile(path, Label(run_id=run_id, trajectory=attempt, ranks=1).encoded())


def test_trace_of_which_there_is_no_checkpoint_is_a_warning(make, tmp_path):
    make("a.ckpt", run_id="known")
    trace(tmp_path, "one", "known").close()
    trace(tmp_path, "two", "gone").close()
    living = trace(tmp_path, "three", "begins")
    found = of("traces without a run", doctor(tmp_path))
    living.close()
    assert found.outcome == "warning"
    assert re.search(r": \S*two-0\.trace\.$", found.detail)


def test_trace_beside_a_damaged_file_may_belong_to_it(make, tmp_path):
    DAMAGE["truncated"][0](make("a.ckpt"))
    trace(tmp_path, "two", "gone").close()
    assert "traces without a run" not in whats(doctor(tmp_path))


def test_checkpoints_of_weights_alone_are_a_warning(make, tmp_path):
    make("a.ckpt", weights_only=True)
    found = of("weights only", doctor(tmp_path))
    assert (found.outcome, "save_weights_only=False" in found.cure) == ("warning", True)
    make("b.ckpt", batch=1)
    assert "weights only" not in whats(doctor(tmp_path))


def test_room_is_compared_with_the_newest_checkpoint(make, tmp_path, monkeypatch):
    size = os.path.getsize(make("a.ckpt"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, size - 10))
    found = of("free room", doctor(tmp_path))
    assert (found.outcome, found.cure) == ("problem", "Free at least 10 bytes, or choose another dirpath.")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, size))
    assert of("free room", doctor(tmp_path)).outcome == "ok"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 0))
    assert of("free room", doctor(tmp_path)).outcome == "unknown"


def test_directory_that_does_not_exist_is_not_made_and_the_nearest_is_examined(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for missing in (tmp_path / "new" / "runs", "new/runs"):
        found = doctor(missing)
        assert found[0].detail == f"it does not exist. A fit makes it when it starts; {tmp_path} was examined instead."
        assert of("rename over a file", found).outcome == "ok"
        assert os.listdir(tmp_path) == []


def test_path_that_leads_through_a_file_is_a_problem(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("gone")
    for name, part in {"file/runs": "is a file, and no directory", "link": "is a link that leads nowhere"}.items():
        (found,) = doctor(tmp_path / name)
        assert (found.outcome, found.cure) == ("problem", "Choose another dirpath.")
        assert part in found.detail


def test_checkpoint_is_refused_with_what_to_pass(make, tmp_path):
    (tmp_path / "shards.ckpt").mkdir()
    (tmp_path / "shards.ckpt" / MARKER).touch()
    for path in (make("a.ckpt"), tmp_path / "shards.ckpt"):
        with pytest.raises(PolicyError, match=f"cannot examine {path}: it is .*Pass the directory it is in"):
            doctor(path)


@pytest.mark.parametrize("wrong", [None, 5, "", b"runs", "a\0b"])
def test_what_is_no_path_is_refused(wrong):
    with pytest.raises(PolicyError, match=r"cannot examine dirpath=.*must be a directory or a URL"):
        doctor(wrong)


def test_every_finding_is_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "doctor.md").read_text(encoding="utf-8")
    sources = [directory_report, leftovers, mounts, probes, remote_probes]
    quoted = "|".join(
        (r'Finding\(\s*"([^"]+)"', r'what(?:, \w+)? = "([^"]+)"', r'_finding\("([^"]+)"', r'Probe\(\s*"([^"]+)"')
    )
    found = {"".join(names) for it in sources for names in re.findall(quoted, inspect.getsource(it))}
    assert len(found) > 25
    assert {name for name in found if f"| {name} |" not in text} == set()
