"""What it takes to list a remote directory: one listing, and one range of each checkpoint, many at a time."""

from __future__ import annotations

import secrets
import shutil
import threading
from pathlib import Path

import fsspec
import pytest
from catalog.conftest import metadata
from fsspec.implementations.memory import MemoryFileSystem
from nets import write_archive
from remote.conftest import put
from remote.contents import checkpoint

from checkpointable import Checkpoints, latest
from checkpointable.catalog.info import read_info
from checkpointable.storage import files

FILES = 40
AT_ONCE = 32


@pytest.fixture
def stored(s3) -> str:
    for number in range(FILES):
        put(f"{s3}/below/{number}.ckpt", checkpoint(batch=number + 1))
    put(f"{s3}/notes.txt", b"no checkpoint")
    return s3


def kinds_of(requests: list[str]) -> tuple[int, int]:
    """How many of them list, and how many read a file."""
    listings = [request for request in requests if "list-type=2" in request]
    assert all(request.startswith("GET ") for request in requests), requests
    return len(listings), len(requests) - len(listings)


def test_listing_of_a_url_is_one_listing_and_one_read_of_each_checkpoint(stored, wire):
    assert len(Checkpoints(stored)) == FILES  # the first time, the client looks for the region
    wire.reset()
    assert len(Checkpoints(stored)) == FILES
    assert kinds_of(wire.requests) == (1, FILES)


def test_listing_that_does_not_use_the_listed_sizes_is_found_by_the_count(stored, wire, monkeypatch):
    """The twin: each file is asked for its size first."""
    listed = files.sizes
    monkeypatch.setattr(files, "sizes", lambda *args, **kwargs: dict.fromkeys(listed(*args, **kwargs)))
    Checkpoints(stored)
    wire.reset()
    assert len(Checkpoints(stored)) == FILES
    assert len(wire.requests) == 1 + 2 * FILES


def test_listing_of_a_url_with_a_copy_of_the_newest_reads_no_file_twice(stored, wire):
    put(f"{stored}/last.ckpt", checkpoint(batch=FILES, created=1000.0))
    put(f"{stored}/{FILES}.ckpt", checkpoint(batch=FILES, created=1000.0))
    Checkpoints(stored)
    wire.reset()
    assert len(Checkpoints(stored)) == FILES + 1
    assert kinds_of(wire.requests) == (1, FILES + 2)


def test_file_replaced_by_one_of_another_size_since_the_listing_is_read_as_it_is(place, monkeypatch):
    for number, size in enumerate([4000, 400_000, 4000]):
        put(f"{place}/{number}.ckpt", checkpoint(size, batch=number))
    stale = {f"{place}/0.ckpt": 90_000, f"{place}/1.ckpt": 5000, f"{place}/2.ckpt": 2_000_000}
    monkeypatch.setattr(files, "sizes", lambda *args, **kwargs: stale)
    found = Checkpoints(place)
    assert [info.batch for info in found] == [0, 1, 2]
    assert [info.size for info in found] == [read_info(info.path).size for info in found]


class Meeting(MemoryFileSystem):
    """Answers a read only once so many are under way."""

    protocol = "meeting"
    store: dict = {}
    pseudo_dirs = [""]
    cachable = False
    gate = threading.Barrier(AT_ONCE, timeout=300)

    def cat_file(self, path, start=None, end=None, **kwargs):
        self.gate.wait()
        return super().cat_file(path, start=start, end=end, **kwargs)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("meeting://", "memory://"))


@pytest.fixture
def meeting(monkeypatch) -> str:
    fsspec.register_implementation("meeting", Meeting, clobber=True)
    url = f"meeting://{secrets.token_hex(8)}"
    for number in range(AT_ONCE):
        fsspec.filesystem("meeting").pipe_file(f"{url}/{number}.ckpt", checkpoint(batch=number))
    return url


def test_thirty_two_remote_files_are_read_at_a_time(meeting):
    assert len(Checkpoints(meeting)) == AT_ONCE


def test_fewer_files_at_a_time_never_meet(meeting, monkeypatch):
    """The twin: with one reader less, no read is ever answered."""
    monkeypatch.setattr(files, "_AT_A_TIME", AT_ONCE - 1)
    monkeypatch.setattr(Meeting, "gate", threading.Barrier(AT_ONCE, timeout=1))
    with pytest.raises(Exception, match="cannot reach meeting://"):
        Checkpoints(meeting)


def test_connections_to_s3_suffice_for_the_files_that_are_read_at_a_time(s3):
    client, _ = files.filesystem(s3)
    assert client.config_kwargs["max_pool_connections"] >= AT_ONCE
    assert client.s3.meta.config.max_pool_connections == client.config_kwargs["max_pool_connections"]


def test_local_directory_with_a_copy_reads_each_file_once(tmp_path: Path, monkeypatch):
    for number in range(3):
        with open(tmp_path / f"{number}.ckpt", "x+b") as file:
            write_archive({"state_dict": {}}, file, metadata(batch=number, batches=number))
    shutil.copy(tmp_path / "2.ckpt", tmp_path / "last.ckpt")
    opened: list[str] = []
    really = open
    monkeypatch.setattr(
        files, "open", lambda path, *a, **k: opened.append(path) or really(path, *a, **k), raising=False
    )
    assert [info.batch for info in Checkpoints(tmp_path)] == [0, 1, 2]
    assert sorted(opened) == [str(tmp_path / name) for name in ("0.ckpt", "1.ckpt", "2.ckpt", "last.ckpt")]


def test_latest_of_a_url_reads_what_a_listing_reads_and_the_newest_file(stored, wire):
    latest(stored)
    wire.reset()
    assert latest(stored) == f"{stored}/below/{FILES - 1}.ckpt"
    heads = [request for request in wire.requests if request.startswith("HEAD ")]
    assert len(wire.requests) - len(heads) == 1 + FILES + 1
