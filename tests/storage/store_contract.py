"""What every ``Store`` has to do. A test module derives from the class, and says where its store is."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from remote.contents import Bytes, checkpoint

from checkpointable import latest
from checkpointable.storage.format import archive
from checkpointable.storage.store import Store

LARGE = 3 << 20  # bytes of a tensor
PIECES = 4  # of such a content, as it is written; a store may read it again to compare


class StoreContract:
    """The tests. A store gets its own directory for each of them.

    ``store`` is a fixture; ``put`` and ``get`` write and read a file without the store, and ``names`` lists all files
    at and below its directory.
    """

    def put(self, path: str, data: bytes) -> str:
        raise NotImplementedError

    def get(self, path: str) -> bytes:
        raise NotImplementedError

    def names(self, store: Store) -> list[str]:
        raise NotImplementedError

    def test_written_file_is_there_byte_for_byte_and_nothing_else(self, store):
        data = checkpoint(epoch=3)
        store.write(Bytes(data), store.path("a.ckpt"), overwrite=False)
        assert self.get(store.path("a.ckpt")) == data
        assert self.names(store) == ["a.ckpt"]
        assert store.problem(store.path("a.ckpt")) is None
        assert archive.read_metadata(store.path("a.ckpt"))["epoch"] == 3

    def test_written_name_with_folders_lies_below(self, store):
        store.write(Bytes(checkpoint()), store.path("val/best/a.ckpt"), overwrite=False)
        assert self.names(store) == ["val/best/a.ckpt"]
        assert latest(store.directory) == store.path("val/best/a.ckpt")

    def test_taken_name_is_refused_and_its_file_left(self, store):
        old = checkpoint(run_id="other")
        path = self.put(store.path("a.ckpt"), old)
        with pytest.raises(FileExistsError, match=r"a\.ckpt"):
            store.write(Bytes(checkpoint()), path, overwrite=False)
        assert self.get(path) == old
        assert self.names(store) == ["a.ckpt"]

    def test_taken_name_is_overwritten_when_that_is_asked_for(self, store):
        new = checkpoint(epoch=2)
        path = self.put(store.path("a.ckpt"), checkpoint())
        store.write(Bytes(new), path, overwrite=True)
        assert self.get(path) == new
        assert self.names(store) == ["a.ckpt"]

    def test_file_is_not_there_before_its_last_byte_is_written(self, store):
        data, seen = checkpoint(LARGE), []
        content = Bytes(data, on_piece=lambda number: seen.append(store.exists(store.path("a.ckpt"))))
        store.write(content, store.path("a.ckpt"), overwrite=False)
        assert seen[:PIECES] == [False] * PIECES
        assert self.get(store.path("a.ckpt")) == data

    def test_old_file_is_there_while_it_is_overwritten(self, store):
        old, seen = checkpoint(epoch=1), []
        path = self.put(store.path("a.ckpt"), old)
        store.write(Bytes(checkpoint(LARGE), on_piece=lambda number: seen.append(self.get(path))), path, overwrite=True)
        assert seen[:PIECES] == [old] * PIECES

    @pytest.mark.parametrize("overwrite", [True, False])
    def test_content_that_raises_leaves_everything_as_it_was(self, store, overwrite):
        old = self.put(store.path("old.ckpt"), checkpoint())
        path = old if overwrite else store.path("new.ckpt")
        before = self.get(old)

        def fail(number: int) -> None:
            if number == 2:
                raise RuntimeError("the content broke")

        with pytest.raises(RuntimeError, match="the content broke"):
            store.write(Bytes(checkpoint(LARGE), on_piece=fail), path, overwrite=overwrite)
        assert self.names(store) == ["old.ckpt"]
        assert self.get(old) == before

    def test_exists_tells_files_from_names_that_are_free(self, store):
        assert not store.exists(store.path("a.ckpt"))
        self.put(store.path("a.ckpt"), checkpoint())
        assert store.exists(store.path("a.ckpt"))
        assert not store.exists(store.path("a"))
        assert not store.exists(store.path("a.ckpt.ckpt"))

    def test_contains_what_lies_in_it_or_below_and_nothing_else(self, store):
        assert store.contains(store.path("a.ckpt"))
        assert store.contains(store.path("b/c.ckpt"))
        assert not store.contains(store.directory)
        assert not store.contains(f"{store.directory}_2/a.ckpt")
        assert not store.contains(store.directory.rpartition("/")[0] + "/a.ckpt")

    def test_remove_deletes_the_file_and_nothing_else(self, store):
        for name in ("a.ckpt", "b.ckpt", "c/a.ckpt"):
            self.put(store.path(name), checkpoint())
        store.remove(store.path("a.ckpt"))
        assert not store.exists(store.path("a.ckpt"))
        assert self.names(store) == ["b.ckpt", "c/a.ckpt"]

    def test_remove_of_a_missing_file_is_no_error(self, store):
        store.remove(store.path("gone.ckpt"))
        store.remove(store.path("gone/gone.ckpt"))

    def test_name_of_a_removed_file_is_free(self, store):
        store.write(Bytes(checkpoint(epoch=1)), store.path("a.ckpt"), overwrite=False)
        store.remove(store.path("a.ckpt"))
        store.write(Bytes(checkpoint(epoch=2)), store.path("a.ckpt"), overwrite=False)
        assert archive.read_metadata(store.path("a.ckpt"))["epoch"] == 2

    @pytest.mark.parametrize("below", [True, False])
    def test_prepare_leaves_nothing_behind_and_everything_as_it_was(self, store, below):
        store.prepare(below=below)
        assert self.names(store) == []
        self.put(store.path("a.ckpt"), b"a")
        self.put(store.path("b/c.ckpt"), b"c")
        store.prepare(below=below)
        assert self.names(store) == ["a.ckpt", "b/c.ckpt"]

    def test_problem_of_a_damaged_or_missing_file_is_named(self, store):
        data = bytearray(checkpoint())
        data[len(data) // 2] ^= 1
        assert "does not match" in store.problem(self.put(store.path("flipped.ckpt"), bytes(data)))
        cut = self.put(store.path("cut.ckpt"), checkpoint()[:-100])
        assert "not an intact zip archive" in store.problem(cut)
        assert store.problem(self.put(store.path("empty.ckpt"), b"")) == "an empty file"
        assert store.problem(store.path("gone.ckpt")) == "there is no such file"

    def test_free_bytes_are_a_number_or_unknown(self, store):
        store.prepare(below=False)
        free = store.free_bytes()
        assert free is None or free > 0

    def test_links_are_made_or_refused_as_the_store_says(self, store):
        path = self.put(store.path("a.ckpt"), checkpoint(epoch=4))
        link = store.path("last.ckpt")
        if not store.has_links:
            with pytest.raises(NotImplementedError, match="has no links"):
                store.link(link, path)
            store.remove_broken_links("last")
            assert self.names(store) == ["a.ckpt"]
            return
        store.link(link, path)
        store.link(link, path)
        assert self.get(link) == self.get(path)
        store.remove(path)
        assert not store.exists(link)
        store.remove_broken_links("last")
        assert self.names(store) == []

    def test_directories_are_made_or_refused_as_the_store_says(self, store):
        def fill(place: Path) -> None:
            (place / "shard").write_bytes(b"shard")

        if not store.has_directories:
            with pytest.raises(NotImplementedError, match="no directory"):
                store.write_directory(fill, store.path("d.ckpt"))
            return
        store.write_directory(fill, store.path("d.ckpt"))
        assert self.names(store) == ["d.ckpt/shard"]
        with pytest.raises(FileExistsError):
            store.write_directory(fill, store.path("d.ckpt"))

    def test_file_whose_name_would_be_a_folder_stays(self, store):
        path = self.put(store.path("a.ckpt"), checkpoint())
        with contextlib.suppress(OSError):  # object stores have no folders, and take such a name
            store.write(Bytes(checkpoint()), f"{path}/b.ckpt", overwrite=False)
        assert self.get(path) == checkpoint()
