"""The states that a power cut may leave, of histories of a few calls, and what is read from a record of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from attacks.power.cuts import cuts
from attacks.power.history import History
from attacks.power.system_calls import read

ROOT = Path("/root")
OPEN, WRITE = 'openat(AT_FDCWD, "/root/new", O_WRONLY|O_CREAT, 0666) = 3', 'write(3, "' + "x" * 1500 + '", 1500) = 1500'
SYNC, RENAME = "fsync(3) = 0", 'rename("/root/new", "/root/old") = 0'
OPEN_ROOT, SYNC_ROOT = 'openat(AT_FDCWD, "/root", O_RDONLY|O_CLOEXEC) = 4', "fsync(4) = 0"
OLD = [
    'openat(AT_FDCWD, "/root/old", O_WRONLY|O_CREAT, 0666) = 3',
    'write(3, "old", 3) = 3',
    *(SYNC, OPEN_ROOT, SYNC_ROOT, "close(3) = 0"),
]


def history(place: Path, calls: list[str]) -> History:
    """Of lines as ``strace -xx`` writes them, but with strings in plain text."""
    lines = []
    for call in calls:
        parts = call.split('"')
        parts[1::2] = ["".join(f"\\x{byte:02x}" for byte in part.encode()) for part in parts[1::2]]
        lines.append("7 " + '"'.join(parts))
    (place / "record").write_text("\n".join(lines) + "\n")
    found = History(ROOT)
    found.add(read(place / "record"))
    return found


def left(place: Path, calls: list[str]) -> set[tuple[tuple[str, bytes], ...]]:
    """The trees that may be left when all calls have returned, by several draws."""
    found = history(place, calls)
    drawn = [it for seed in range(20) for it in cuts(found, random.Random(seed))]
    return {tuple(sorted(it.tree.items())) for it in drawn if it.point == len(found.events)}


def held_by(name: str, trees: set[tuple[tuple[str, bytes], ...]]) -> set[bytes | None]:
    return {dict(tree).get(name) for tree in trees}


def test_file_renamed_without_a_sync_may_be_empty_or_torn(tmp_path):
    found = held_by("old", left(tmp_path, [*OLD, OPEN, WRITE, RENAME]))
    assert {b"old", b"", bytes(1500), b"x" * 512, b"x" * 1500, b"x" * 512 + bytes(988)} <= found
    assert b"old" + bytes(1497) in found  # the bytes of another file


def test_file_renamed_after_a_sync_is_the_old_or_the_new_one(tmp_path):
    assert held_by("old", left(tmp_path, [*OLD, OPEN, WRITE, SYNC, RENAME])) == {b"old", b"x" * 1500}


def test_name_is_durable_once_its_directory_is_synced(tmp_path):
    calls = [*OLD, OPEN, WRITE, SYNC, RENAME, SYNC_ROOT]
    assert left(tmp_path, calls) == {(("old", b"x" * 1500),)}


def test_sync_of_a_file_makes_no_name_durable(tmp_path):
    assert held_by("new", left(tmp_path, [*OLD, OPEN, WRITE, SYNC])) == {None, b"x" * 1500}


def test_names_are_lost_in_any_order_but_that_of_one_name(tmp_path):
    calls = [*OLD, OPEN, SYNC, 'link("/root/new", "/root/two") = 0', 'unlink("/root/old") = 0']
    trees = {frozenset(dict(tree)) for tree in left(tmp_path, calls)}
    assert {frozenset(), frozenset({"two"}), frozenset({"old", "two"}), frozenset({"new"})} <= trees
    replaced = [*OLD, OPEN, SYNC, RENAME, 'unlink("/root/old") = 0']
    assert {frozenset(dict(tree)) for tree in left(tmp_path, replaced)} == {
        frozenset({"old"}),
        frozenset({"old", "new"}),
        frozenset(),
    }


def test_file_in_a_directory_is_lost_with_it(tmp_path):
    inside = ['mkdir("/root/a", 0777) = 0', OPEN.replace("/root/new", "/root/a/new"), SYNC]
    synced = ['openat(AT_FDCWD, "/root/a", O_RDONLY) = 5', "fsync(5) = 0"]
    trees = {frozenset(dict(tree)) for tree in left(tmp_path, [*inside, *synced])}
    assert trees == {frozenset(), frozenset({"a", "a/new"})}


@pytest.mark.parametrize("sync", ["fsync", "fdatasync"])
def test_write_that_returns_during_a_sync_is_not_durable(tmp_path, sync):
    (tmp_path / "record").write_text(
        '7 openat(AT_FDCWD, "\\x2f\\x72\\x6f\\x6f\\x74\\x2f\\x61", O_WRONLY|O_CREAT, 0666) = 3\n'
        f'7 {sync}(3 <unfinished ...>\n8 write(3, "\\x62", 1) = 1\n7 <... {sync} resumed>) = 0\n'
    )
    found = History(ROOT)
    found.add(read(tmp_path / "record"))
    trees = [it.tree for it in cuts(found, random.Random(0)) if it.point == len(found.events)]
    assert {tree.get("a") for tree in trees} >= {None, b"", b"b"}
