"""The history of a run is a member of its own in the file, beside the metadata, and sealed as it is."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace

import fsspec
import pytest
import torch
from catalog.conftest import metadata

from checkpointable import CheckpointFileError
from checkpointable.catalog.history import read_history
from checkpointable.catalog.info import read_info
from checkpointable.policy.as_builtin import as_builtin
from checkpointable.policy.bounded_history import MOST_BYTES
from checkpointable.policy.history import History, Point
from checkpointable.policy.names import HISTORY_KEY, KEY
from checkpointable.policy.position import Position
from checkpointable.storage.format import archive, checkpoint, verify, zip_directory
from checkpointable.storage.ranges import RangeReader
from checkpointable.storage.staging.snapshot import Snapshot

POINT = Point(position=Position(1, 2, 3, 4), metrics={"val_loss": float("inf")}, ended="validation")
HISTORY = History(monitor="val_loss", mode="min", points=(POINT,) * 300)
TEXT = archive.encode(as_builtin(HISTORY)).decode()
STATE = {"state_dict": {"weight": torch.arange(20_000.0)}}


def write(path, text, described=None):
    ours = {"epoch": 3, "metadata": described or metadata(), HISTORY_KEY: text}
    path.write_bytes(b"".join(Snapshot.of({**STATE, KEY: ours}).pieces()))
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "a.ckpt", TEXT)


def test_history_comes_back_as_it_was(file):
    assert read_history(file) == HISTORY
    assert checkpoint.history_text(file) == TEXT


def test_history_lies_after_torchs_members_and_before_the_metadata(file):
    names = [name.removeprefix("archive/") for name in zipfile.ZipFile(file).namelist()]
    assert names[-3:] == [".data/serialization_id", archive.HISTORY_MEMBER, archive.MEMBER]


def test_history_is_no_part_of_what_torch_loads(file):
    loaded = torch.load(file, weights_only=True, mmap=True)
    assert loaded[KEY].keys() == {"epoch", "metadata"}
    assert torch.equal(loaded["state_dict"]["weight"], STATE["state_dict"]["weight"])


def test_checkpoint_that_is_saved_is_left_as_it_was(tmp_path):
    ours = {"metadata": metadata(), HISTORY_KEY: TEXT}
    given = {**STATE, KEY: ours}
    Snapshot.of(given)
    assert given[KEY] is ours
    assert ours[HISTORY_KEY] == TEXT


def test_metadata_is_read_without_reading_the_history(file):
    with open(file, "r+b") as opened:
        directory = zip_directory.read(opened)
        member = directory.last_named(f"archive/{archive.HISTORY_MEMBER}".encode())
        opened.seek(member.start)
        opened.write(bytes(200))
    assert read_info(file).kind == "interval"


@pytest.mark.parametrize("described", [metadata(), None])
def test_file_without_history_reads_as_none(tmp_path, described):
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"".join(Snapshot(STATE, described).pieces()))
    assert read_history(path) is None
    assert checkpoint.history_text(path) is None


def test_file_of_another_tool_reads_as_none(tmp_path):
    torch.save(STATE, tmp_path / "a.ckpt")
    assert read_history(tmp_path / "a.ckpt") is None


@pytest.mark.parametrize("where", [0.0, 0.5, 0.99])
def test_damaged_history_is_found_by_verify_and_refused_when_it_is_read(file, where):
    assert verify.problem(file) is None
    content = bytearray(file.read_bytes())
    begin = content.index(TEXT.encode())
    content[begin + int(where * len(TEXT))] ^= 1
    file.write_bytes(content)
    assert "checkpointable_history.json does not match" in verify.problem(file)
    with pytest.raises(CheckpointFileError, match="the checksum of its metadata does not match"):
        read_history(file)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no json", "is not an intact checkpoint"),
        ("[]", "metadata of another kind: list"),
        ("{}", "monitor is missing, mode is missing"),
        (json.dumps({"monitor": 3, "mode": "min"}), "monitor is 3"),
    ],
)
def test_history_that_means_nothing_is_refused_with_the_reason(tmp_path, text, expected):
    with pytest.raises(CheckpointFileError, match=expected):
        read_history(write(tmp_path / "a.ckpt", text))


def test_metadata_of_a_remote_file_is_read_at_once_also_beside_the_longest_history(tmp_path):
    class Counted(RangeReader):
        requests = 0

        def _load(self):
            Counted.requests += 1
            super()._load()

    long = archive.encode(as_builtin(replace(HISTORY, points=(POINT,) * 420))).decode()
    assert MOST_BYTES * 3 / 4 < len(long) <= MOST_BYTES
    ours = {"metadata": metadata(kind="best"), HISTORY_KEY: long}
    content = b"".join(Snapshot.of({"weight": torch.zeros(1 << 20), KEY: ours}).pieces())
    url = "memory://history_member/a.ckpt"
    fsspec.filesystem("memory").pipe("/history_member/a.ckpt", content)
    with io.BufferedReader(Counted(url)) as file:
        assert archive.read_metadata_in(file, url)["kind"] == "best"
    assert Counted.requests == 1
    assert len(read_history(url).points) == 420
