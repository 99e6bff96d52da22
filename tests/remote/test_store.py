"""What a store on a remote file system does beside what every store does."""

from __future__ import annotations

import copy
import os
import pickle
import random
import subprocess
import sys
import threading

import pytest
from remote.conftest import get, names, put, unfinished
from remote.contents import PART, Bytes, checkpoint
from s3fs import S3FileSystem

from checkpointable import CheckpointFileError, latest
from checkpointable.saving import pointers
from checkpointable.storage.format import archive
from checkpointable.storage.local import store_at as any_store_at
from checkpointable.storage.paths import filesystem
from checkpointable.storage.remote import RemoteStore
from checkpointable.storage.upload import difference


@pytest.mark.parametrize("size", [PART - 5000, 3 * PART, 3 * PART + 100_000])
def test_large_file_is_uploaded_in_parts_of_one_size(s3, store_at, size):
    store, data = store_at(s3), checkpoint(size)
    store.write(Bytes(data), store.path("a.ckpt"), overwrite=False)
    assert get(store.path("a.ckpt")) == data
    files, path = filesystem(store.path("a.ckpt"))
    assert files.info(path)["ETag"].strip('"').endswith(f"-{-(-len(data) // PART)}")
    assert unfinished(s3) == []


def test_file_whose_checksum_agrees_is_not_read_back(s3, store_at, wire):
    store = store_at(s3)
    store.write(Bytes(checkpoint(PART)), store.path("a.ckpt"), overwrite=False)
    assert wire.received < PART / 10


def test_file_without_a_checksum_of_its_parts_is_read_back(s3, store_at, wire):
    """As with encryption by own keys: the twin of the test above, with parts of another size."""
    data = checkpoint(PART)
    url = put(f"{s3}/a.ckpt", data)
    assert difference(Bytes(data), url, part_size_bytes=PART) is None
    assert wire.received > PART
    other = bytearray(data)
    other[len(data) // 2] ^= 1
    assert difference(Bytes(bytes(other)), url, part_size_bytes=PART) == "its bytes are not those that were sent"
    assert "bytes were sent" in str(difference(Bytes(data[:-1]), url, part_size_bytes=PART))
    assert "bytes were sent" in str(difference(Bytes(data + b"1"), url, part_size_bytes=PART))


def test_file_made_by_another_process_is_seen_at_once(s3, store_at):
    store = store_at(s3)
    a, b = store.path("a.ckpt"), store.path("b.ckpt")
    other, remembering = S3FileSystem(skip_instance_cache=True), S3FileSystem()
    other.pipe_file(a, checkpoint())
    assert (latest(s3), store.exists(b), remembering.exists(b), len(remembering.ls(s3))) == (a, False, False, 1)
    other.pipe_file(b, checkpoint(batch=1))
    assert (latest(s3), store.exists(b)) == (b, True)
    assert not remembering.exists(b)  # the twin: a client that has kept the listing
    other.rm_file(b)
    assert (latest(s3), store.exists(b)) == (a, False)


def test_url_of_a_store_ends_without_a_slash():
    store = RemoteStore("s3://bucket/runs/a/")
    assert store.directory == "s3://bucket/runs/a"
    assert store.path("b/c.ckpt") == "s3://bucket/runs/a/b/c.ckpt"
    assert store.free_bytes() is None


def test_pointers_in_a_remote_directory_are_not_made(place, store_at):
    store = store_at(place)
    path = put(store.path("a.ckpt"), checkpoint())
    assert pointers.move(store, "last", path, "run") == []
    assert names(place) == ["a.ckpt"]


def test_metadata_of_what_is_no_checkpoint_is_refused(place, store_at):
    store = store_at(place)
    with pytest.raises(CheckpointFileError, match=r"a\.ckpt is not an intact checkpoint"):
        archive.read_metadata(put(store.path("a.ckpt"), b"these are no weights"))
    with pytest.raises(FileNotFoundError):
        archive.read_metadata(store.path("gone.ckpt"))


def test_store_works_on_any_thread_and_as_a_copy(s3, store_at):
    stores = [store_at(s3), copy.deepcopy(store_at(s3)), pickle.loads(pickle.dumps(store_at(s3)))]
    threads = [
        threading.Thread(
            target=store.write,
            args=(Bytes(checkpoint(PART)), store.path(f"{number}.ckpt")),
            kwargs={"overwrite": False},
        )
        for number, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(s3) == ["0.ckpt", "1.ckpt", "2.ckpt"]


_FORKS = """
import os, sys, types

package = types.ModuleType("checkpointable")  # without Lightning, which takes seconds to load
package.__path__ = [sys.argv[2]]
sys.modules["checkpointable"] = package
from checkpointable.storage.remote import RemoteStore

class Content:
    size = 10
    def pieces(self):
        yield memoryview(bytes(10))

store = RemoteStore(sys.argv[1])
store.write(Content(), store.path("before.ckpt"), overwrite=False)
if os.fork() == 0:
    store.write(Content(), store.path("child.ckpt"), overwrite=False)
    os._exit(0)
assert os.wait()[1] == 0
assert store.exists(store.path("child.ckpt"))
store.write(Content(), store.path("after.ckpt"), overwrite=False)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_store_works_after_a_fork_in_both_processes(s3, pytestconfig):
    package = str(pytestconfig.rootpath / "checkpointable")
    subprocess.run([sys.executable, "-W", "ignore", "-c", _FORKS, s3, package], check=True, timeout=600)
    assert names(s3) == ["after.ckpt", "before.ckpt", "child.ckpt"]


def test_write_draws_nothing_from_trainings_generator(s3, store_at, wire):
    random.seed(7)
    before = random.getstate()
    store = store_at(s3)
    wire.cut()
    with pytest.raises(OSError, match="tries"):
        store.write(Bytes(checkpoint()), store.path("a.ckpt"), overwrite=True)
    wire.mend()
    store.write(Bytes(checkpoint()), store.path("a.ckpt"), overwrite=True)
    assert random.getstate() == before


def test_store_at_a_path_is_local_and_at_a_url_is_remote(tmp_path):
    assert any_store_at(tmp_path).directory == str(tmp_path)
    assert any_store_at(f"file://{tmp_path}").directory == str(tmp_path)
    assert isinstance(any_store_at("s3://bucket/runs"), RemoteStore)
