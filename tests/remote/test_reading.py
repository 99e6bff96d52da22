"""The reading side takes a URL where it takes a path."""

from __future__ import annotations

import io
import random
from pathlib import PurePosixPath

import pytest
from remote.conftest import get, names, put
from remote.contents import checkpoint

from checkpointable import (
    CheckpointableWarning,
    CheckpointFileError,
    Checkpoints,
    RemoteError,
    SaveError,
    best,
    latest,
)
from checkpointable.storage.format import archive, verify
from checkpointable.storage.ranges import RangeReader

LARGE = 50 << 20


def flipped(data: bytes) -> bytes:
    """In the middle: among the bytes of the tensor."""
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


@pytest.fixture
def runs(place) -> str:
    """Three checkpoints of one run, one of another, and what is none."""
    for number, score in enumerate([0.5, 0.2, 0.9]):
        put(f"{place}/b{number}.ckpt", checkpoint(epoch=number, score=score, created=10.0 + number))
    put(f"{place}/below/older.ckpt", checkpoint(run_id="older", created=1.0, score=0.1))
    put(f"{place}/notes.txt", b"no checkpoint")
    put(f"{place}/.checkpointable-0123.tmp", b"half")
    return place


def test_latest_and_best_of_a_url_are_urls(runs):
    assert latest(runs) == f"{runs}/b2.ckpt"
    assert best(runs) == f"{runs}/below/older.ckpt"
    assert latest(f"{runs}/") == f"{runs}/b2.ckpt"
    assert latest(f"{runs}/below") == f"{runs}/below/older.ckpt"


def test_latest_of_a_file_is_that_file(runs):
    assert latest(f"{runs}/b0.ckpt") == f"{runs}/b0.ckpt"


def test_latest_where_nothing_is_or_nothing_of_ours_is_none(place):
    assert latest(place) is None
    put(f"{place}/notes.txt", b"no checkpoint")
    assert latest(place) is None


def test_latest_of_a_file_that_is_no_checkpoint_raises_with_the_cure(runs):
    with pytest.raises(CheckpointFileError, match=r"notes\.txt is not a checkpoint.*Pass the directory"):
        latest(f"{runs}/notes.txt")


def test_latest_of_a_neighbour_with_the_same_beginning_is_not_taken(place):
    put(f"{place}-2/a.ckpt", checkpoint())
    assert latest(place) is None


def test_damaged_remote_file_is_skipped_with_a_warning(runs):
    put(f"{runs}/b2.ckpt", flipped(get(f"{runs}/b2.ckpt")))
    with pytest.warns(
        CheckpointableWarning, match=r"skipped .*/b2\.ckpt: the checksum of its member.*is .*b1\.ckpt\. Replace"
    ):
        assert latest(runs) == f"{runs}/b1.ckpt"


def test_truncated_remote_file_is_skipped_with_a_warning(runs):
    put(f"{runs}/b2.ckpt", get(f"{runs}/b2.ckpt")[:-3000])
    with pytest.warns(CheckpointableWarning, match=r"skipped .*/b2\.ckpt: "):
        assert latest(runs) == f"{runs}/b1.ckpt"


def test_checkpoints_of_a_url_are_described_verified_and_in_order(runs):
    found = Checkpoints(runs)
    assert [info.path.removeprefix(runs) for info in found] == ["/below/older.ckpt", "/b0.ckpt", "/b1.ckpt", "/b2.ckpt"]
    assert [info.epoch for info in found] == [0, 0, 1, 2]
    assert found[-1].size == len(get(f"{runs}/b2.ckpt"))
    assert set(found.verify().values()) == {None}
    assert "b2.ckpt" in repr(found)
    put(f"{runs}/b1.ckpt", flipped(get(f"{runs}/b1.ckpt")))
    assert "checksum" in str(found.verify()[f"{runs}/b1.ckpt"])


def test_prune_of_a_url_deletes_what_it_says_and_nothing_else(runs):
    found = Checkpoints(runs)
    outdated = [f"{runs}/b0.ckpt"]
    assert found.prune() == outdated
    assert "b0.ckpt" in names(runs)
    assert found.prune(dry_run=False) == outdated
    assert names(runs) == [".checkpointable-0123.tmp", "b1.ckpt", "b2.ckpt", "below/older.ckpt", "notes.txt"]


def test_prune_during_an_outage_raises_and_names_what_stays(s3, wire):
    for number in range(3):
        put(f"{s3}/b{number}.ckpt", checkpoint(epoch=number, created=10.0 + number))
    found = Checkpoints(s3)
    outdated = found.prune(keep_best=0)
    wire.cut()
    with pytest.raises((SaveError, RemoteError), match="cannot"):
        found.prune(keep_best=0, dry_run=False)
    wire.mend()
    assert len(outdated) == 2
    assert names(s3) == ["b0.ckpt", "b1.ckpt", "b2.ckpt"]


def test_metadata_of_a_large_file_is_read_by_its_end_alone(s3, wire):
    url = put(f"{s3}/a.ckpt", checkpoint(LARGE, epoch=5))
    wire.reset()
    assert archive.read_metadata(url)["epoch"] == 5
    assert wire.received < 1 << 20
    assert len(wire.requests) == 2
    wire.reset()
    assert len(Checkpoints(s3)) == 1
    assert wire.received < 1 << 20
    assert verify.problem(url) is None  # the twin: verifying reads all of it
    assert wire.received > LARGE


def test_outage_raises_rather_than_start_anew(s3, wire):
    put(f"{s3}/a.ckpt", checkpoint())
    wire.cut()
    for read in (latest, best, Checkpoints, verify.problem, archive.read_metadata):
        with pytest.raises(RemoteError, match=r"cannot reach s3://.*Could not connect.* Check that"):
            read(f"{s3}/a.ckpt")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_outage_while_a_file_is_verified_does_not_make_it_damaged(s3, wire, share):
    size = 20 << 20
    put(f"{s3}/older.ckpt", checkpoint(created=1.0))
    put(f"{s3}/newest.ckpt", checkpoint(size, created=9.0, batch=9))
    wire.reset()
    wire.cut_after = int(share * size)
    with pytest.raises(RemoteError, match=r"cannot reach .*newest\.ckpt"):  # and not a warning, which is an error here
        latest(s3)


def test_url_that_was_made_a_path_is_a_url_again(runs):
    assert latest(PurePosixPath(runs)) == f"{runs}/b2.ckpt"
    assert len(Checkpoints(PurePosixPath(runs))) == 4


def test_file_url_is_a_local_path(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(checkpoint())
    assert latest(f"file://{tmp_path}") == str(tmp_path / "a.ckpt")
    assert latest(f"local://{tmp_path}/a.ckpt") == str(tmp_path / "a.ckpt")


@pytest.mark.parametrize("size", [0, 1, (1 << 19) - 1, 1 << 19, (1 << 19) + 1, 3 << 20, (9 << 20) + 5])
def test_reading_by_ranges_gives_what_reading_the_whole_gives(size):
    chance = random.Random(size)
    data = chance.randbytes(size)
    url = put(f"memory://ranges/{size}", data)
    with io.BufferedReader(RangeReader(url)) as file:
        for _ in range(30):
            start, count = chance.randrange(size + 10), chance.randrange(1 << 20)
            file.seek(start)
            assert file.read(count) == data[start : start + count]
        assert file.seek(0) == 0
        assert file.read() == data
        assert file.read(5) == b""
        with pytest.raises((ValueError, OSError)):
            file.seek(-size - 1, io.SEEK_END)
