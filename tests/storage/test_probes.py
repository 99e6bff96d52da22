"""What is found out about a file system: all of it on real ones, and each thing that one can refuse or do wrong."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpointable.storage import probes, probes_of_locks
from checkpointable.storage.findings import Finding, Findings, Outcome
from checkpointable.storage.probes import Probe, probe

NEEDED = ("files", "rename over a file", "hard links", "symbolic links", "locks", "sync of a file", "sync of names")


def tree(root: Path) -> dict[str, object]:
    """All that is at or below a directory: what kind of thing, since when, and what is in it."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        found[str(path.relative_to(root))] = (status.st_mode, status.st_ino, content)
    return found


def of(what: str, findings: list[Finding]) -> Finding:
    (found,) = (finding for finding in findings if finding.what == what)
    return found


def refuse(code: int):
    def call(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return call


def filled(root: Path) -> Path:
    """A directory among others, which hold files and links."""
    (root / "beside").mkdir()
    (root / "runs").mkdir()
    (root / "runs" / "a.ckpt").write_bytes(b"weights")
    (root / "runs" / "last.ckpt").symlink_to("a.ckpt")
    return root / "runs"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """In memory, where there is a place: it is quick there."""
    with in_memory(tmp_path) as made:
        yield made


@contextlib.contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="probed-", dir=memory) as made:
        yield Path(made)


@pytest.fixture
def place(root: Path) -> Path:
    return filled(root)


def test_file_system_that_does_all_is_ok_and_nothing_is_left(tmp_path):
    place = filled(tmp_path)
    before = tree(tmp_path)
    found = probe(place)
    assert [finding.what for finding in found] == [question.what for question in probes.PROBES]
    assert [of(what, found).outcome for what in NEEDED] == [Outcome.OK] * len(NEEDED)
    assert "ms" in of("sync of a file", found).detail
    assert "ms" in of("sync of names", found).detail
    assert tree(tmp_path) == before


def test_probe_that_writes_elsewhere_is_found_by_that_comparison(place, root, monkeypatch):
    """The twin."""
    before = tree(root)
    wrong = Probe("wrong", lambda folder: str((place / "litter").write_bytes(b"")), Outcome.PROBLEM, "")
    monkeypatch.setattr(probes, "PROBES", [wrong])
    probe(place)
    assert tree(root) != before


@pytest.mark.parametrize(
    ("call", "what", "outcome", "part", "cure"),
    [
        ("os.replace", "rename over a file", "problem", "half a checkpoint", "another file system"),
        ("os.link", "hard links", "warning", "looked up before it is taken", "dirpath of its own"),
        ("os.symlink", "symbolic links", "warning", "become copies", "room free"),
        ("fcntl.flock", "locks", "warning", "by its age", "Nothing has to be done"),
        ("os.fsync", "sync of a file", "problem", "made durable", "another file system"),
        ("fcntl.ioctl", "reflinks", "ok", "nothing depends on it", ""),
        ("os.pwrite", "direct writes", "warning", "page cache", "Nothing has to be done"),
    ],
)
@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EINVAL], ids=errno.errorcode.get)
def test_refused_call_is_a_finding_with_its_cure(place, root, monkeypatch, call, what, outcome, part, cure, code):
    before = tree(root)
    module, name = call.split(".")
    with monkeypatch.context() as patch:
        patch.setattr({"os": os, "fcntl": fcntl}[module], name, refuse(code))
        found = of(what, probe(place))
    assert found.outcome == outcome
    assert found.detail.startswith(f"{os.strerror(code)}: ")
    assert part in found.detail
    assert cure in found.cure
    assert tree(root) == before


@pytest.mark.parametrize(
    ("code", "part"),
    [(errno.EINVAL, "a power cut may lose the newest files"), (errno.ENOSPC, "a fit does not start there")],
)
def test_directory_that_cannot_be_synced_is_found_also_where_a_fit_has_seen_it(place, monkeypatch, code, part):
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda it: refuse(code)() if stat.S_ISDIR(os.fstat(it).st_mode) else real(it))
    monkeypatch.setattr("checkpointable.storage.commit._UNSYNCED", {os.stat(place).st_dev})
    found = of("sync of names", probe(place))
    assert found.outcome == ("warning" if code == errno.EINVAL else "problem")
    assert part in found.detail


def reader_has_ended() -> None:
    for thread in threading.enumerate():
        if thread.name == "checkpointable-reader":
            thread.join(60)


def unlink_first(source, target):
    os.unlink(target)
    reader_has_ended()
    os.rename(source, target)


def in_pieces(source, target):
    Path(target).write_bytes(Path(source).read_bytes()[:10])
    reader_has_ended()
    os.rename(source, target)


@pytest.mark.parametrize(
    ("wrong", "part"), [(unlink_first, "a reader found no file"), (in_pieces, "a reader found a part of a file")]
)
def test_rename_that_is_not_atomic_is_a_problem(place, monkeypatch, wrong, part):
    monkeypatch.setattr(os, "replace", wrong)
    found = of("rename over a file", probe(place))
    assert found.outcome == "problem"
    assert part in found.detail


def test_hard_link_that_replaces_a_file_is_a_warning(place, monkeypatch):
    real = os.link

    def link(source, target):
        Path(target).unlink(missing_ok=True)
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    found = of("hard links", probe(place))
    assert (found.outcome, found.detail.partition(":")[0]) == ("warning", "a link replaces a file that has its name")


def test_lock_that_locks_nothing_is_a_warning(place, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *args: None)
    assert of("locks", probe(place)).detail.startswith("a file was locked twice: ")


def test_lock_that_another_process_does_not_see_is_a_warning(place, monkeypatch):
    monkeypatch.setattr(probes_of_locks, "_ASK", "print('free')")
    assert of("locks", probe(place)).detail.startswith("another process locked a file that is locked: ")


def test_lock_that_no_other_process_was_asked_about_is_not_said_to_be_seen(place, monkeypatch):
    monkeypatch.setattr(probes_of_locks, "_ASK", "raise OSError('no locks')")
    found = of("locks", probe(place))
    assert "whether another process sees it is not known (OSError: no locks)" in found.detail


def test_system_without_flock_is_asked_by_filelock(place, root, monkeypatch):
    before = tree(root)
    monkeypatch.setattr(probes_of_locks, "fcntl", None)
    assert of("locks", probe(place)).detail == "a locked file is not locked again."
    assert tree(root) == before


def test_names_that_differ_in_case_alone_and_are_one_are_said(place, monkeypatch):
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name == "A" or real(path))
    assert "the same" in of("upper and lower case", probe(place)).detail


def test_refused_allocation_of_the_recorders_file_is_said(place, monkeypatch):
    assert "mapped memory" in of("file of the recorder", probe(place)).detail
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.ENOTSUP))
    found = of("file of the recorder", probe(place))
    assert (found.outcome, "by a write each" in found.detail) == ("ok", True)


def test_ctrl_c_in_a_probe_leaves_nothing(place, root, monkeypatch):
    before, seen = tree(root), []

    def link(source, target):
        seen.append(tree(root) != before)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(KeyboardInterrupt):
        probe(place)
    assert seen == [True]
    assert tree(root) == before


def test_ctrl_c_while_the_folder_is_deleted_leaves_nothing(place, root, monkeypatch):
    before, real, calls = tree(root), shutil.rmtree, []

    def rmtree(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real(*args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(KeyboardInterrupt):
        probe(place)
    assert tree(root) == before


def test_folder_is_locked_so_that_no_fit_takes_it_for_a_leftover(place, monkeypatch):
    def link(source, target):
        folder = Path(target).parent.parent
        descriptor = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(KeyboardInterrupt):
        probe(place)


def test_folder_that_cannot_be_deleted_is_a_problem_that_names_it(place, monkeypatch):
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors=False: None)
    found = of("deleting", probe(place))
    (left,) = place.glob(".checkpointable-*")
    assert found.outcome == "problem"
    assert str(left) in found.detail
    assert "delete that folder by hand" in found.cure


def test_directory_that_cannot_be_written_is_one_problem(place, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", refuse(errno.EACCES))
    (found,) = probe(place)
    assert (found.what, found.outcome) == ("writing", "problem")
    assert "Permission denied" in found.detail
    assert "Choose a dirpath that this process can write" in found.cure


def test_findings_are_shown_one_a_line_whatever_is_in_a_name():
    findings = Findings(
        "runs", [Finding("a", Outcome.OK, "fine."), Finding("long", Outcome.PROBLEM, "b\n\x1b.", "Do.")]
    )
    assert repr(findings) == "runs: 1 ok, 1 problem\nok       a     fine.\nproblem  long  b\\n\\x1b. Do."
    assert findings.problems == [findings[1]]
    assert findings[:1] == (findings[0],)
    assert findings.to_dicts()[0] == {"what": "a", "outcome": "ok", "detail": "fine.", "cure": ""}
