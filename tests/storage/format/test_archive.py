"""A checkpoint file: torch's archive, one member more, and what damage looks like."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import random
import re
import struct
import zipfile
from pathlib import Path

import pytest
import torch
import torch.utils.serialization
from nets import seal, write_archive

from checkpointable._errors import CheckpointFileError
from checkpointable.storage.format import archive, verify

CHECKPOINT = {
    "epoch": 3,
    "state_dict": {"weight": torch.arange(5000, dtype=torch.float32), "bias": torch.arange(7)},
    "name": "digits",
}
METADATA = {"epoch": 3, "batch": 200, "metrics": {"val_loss": 0.25}, "reasons": ["interval", "best"], "from": None}


ID = "archive/.data/serialization_id"


def written(path: Path, metadata: object = METADATA) -> Path:
    with open(path, "x+b") as file:
        write_archive(CHECKPOINT, file, metadata)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def spans(path: Path) -> dict[str, range]:
    """Where the bytes of each member lie in the file."""
    found, data = {}, path.read_bytes()
    with zipfile.ZipFile(path) as opened:
        for info in opened.infolist():
            name_size, extra_size = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
            start = info.header_offset + 30 + name_size + extra_size
            found[info.filename] = range(start, start + info.compress_size)
    return found


def flipped(path: Path, offset: int, bit: int) -> Path:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    damaged = path.with_name("damaged.ckpt")
    damaged.write_bytes(data)
    return damaged


def same(loaded: dict) -> bool:
    state = loaded["state_dict"]
    return loaded["epoch"] == 3 and all(torch.equal(state[name], CHECKPOINT["state_dict"][name]) for name in state)


@pytest.mark.parametrize(
    "metadata",
    [
        METADATA,
        {},
        {"values": [math.inf, -math.inf, 0.0, -1.5, 1e-300], "nested": {"loss": math.inf, "acc": [-math.inf]}},
        {"text": "Grüße, \u4e16\u754c", "flag": True, "big": 2**70, "float": 1.5, "none": None},
        {"float": 0.0},
    ],
    ids=["usual", "empty", "infinite", "kinds", "named float"],
)
def test_metadata_through_a_file_comes_back_equal(tmp_path, metadata):
    assert archive.read_metadata(written(tmp_path / "a.ckpt", metadata)) == metadata


def test_metadata_with_nan_comes_back_as_nan(tmp_path):
    loaded = archive.read_metadata(written(tmp_path / "a.ckpt", {"m": {"a": math.nan, "b": [1.0, math.nan]}}))
    assert math.isnan(loaded["m"]["a"])
    assert math.isnan(loaded["m"]["b"][1])


def test_metadata_with_nan_is_json_that_any_reader_takes(tmp_path):
    path = written(tmp_path / "a.ckpt", {"a": math.nan, "b": math.inf})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    stored = members(path)["archive/checkpointable.json"]
    assert json.loads(stored, parse_constant=refuse) == {"a": {"__float__": "nan"}, "b": {"__float__": "inf"}}
    with pytest.raises(AssertionError, match="NaN is not JSON"):  # the twin: what json alone would have stored
        json.loads(json.dumps({"a": math.nan}), parse_constant=refuse)


def test_metadata_with_tuples_and_number_keys_comes_back_plain(tmp_path):
    assert archive.read_metadata(written(tmp_path / "a.ckpt", {1: (2, 3)})) == {"1": [2, 3]}


def test_metadata_that_is_not_plain_is_refused_when_written(tmp_path):
    with pytest.raises(TypeError, match=r"(Posix|Windows)Path is not JSON"):
        written(tmp_path / "a.ckpt", {"path": tmp_path})


def test_file_that_is_lost_while_it_is_read_cannot_be_read_to_its_end(tmp_path):
    data = written(tmp_path / "a.ckpt").read_bytes()

    class Lost(io.BytesIO):
        def seek(self, offset, whence=io.SEEK_SET):
            if (offset, whence) == (0, io.SEEK_SET):  # the first member, after the directory
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return super().seek(offset, whence)

    assert "cannot be read to its end: OSError: " in verify.problem_in(Lost(data))


def test_member_is_the_last_of_the_archive_and_stored_plainly(tmp_path):
    path = written(tmp_path / "a.ckpt")
    with zipfile.ZipFile(path) as opened:
        last = max(opened.infolist(), key=lambda info: info.header_offset)
    assert last.filename == "archive/checkpointable.json"
    assert last.compress_type == zipfile.ZIP_STORED


def test_other_members_than_the_pickle_are_byte_for_byte_what_torch_writes(tmp_path):
    path, buffer = written(tmp_path / "a.ckpt"), io.BytesIO()
    torch.save(CHECKPOINT, buffer)
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes(buffer.getvalue())
    ours = members(path)
    assert json.loads(ours.pop("archive/checkpointable.json")) == METADATA
    theirs = members(alone)
    assert list(ours) == list(theirs)
    assert len(ours.pop(ID)) == len(theirs.pop(ID))
    del ours["archive/data.pkl"], theirs["archive/data.pkl"]  # compared in test_torch_records.py
    assert ours == theirs


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("weights_only", [False, True])
def test_file_with_metadata_loads_with_torch(tmp_path, mmap, weights_only):
    assert same(torch.load(written(tmp_path / "a.ckpt"), weights_only=weights_only, mmap=mmap))


@pytest.mark.parametrize("mmap", [False, True])
def test_file_with_metadata_loads_with_calculated_offsets(tmp_path, mmap):
    config = torch.utils.serialization.config.load
    if not hasattr(config, "calculate_storage_offsets"):
        pytest.skip("this torch does not calculate storage offsets")
    with torch.utils.serialization.config.patch("load.calculate_storage_offsets", True):
        assert same(torch.load(written(tmp_path / "a.ckpt"), weights_only=True, mmap=mmap))


def test_intact_file_has_no_problem(tmp_path):
    assert verify.problem(written(tmp_path / "a.ckpt")) is None
    assert verify.problem(written(tmp_path / "b.ckpt", None)) is None


def test_flipped_bit_anywhere_in_a_member_is_found(tmp_path):
    path, rng = written(tmp_path / "a.ckpt"), random.Random(20)
    for member, span in spans(path).items():
        offsets = {span.start, span.stop - 1, *(rng.choice(span) for _ in range(20))}
        for offset in sorted(offsets):
            found = verify.problem(flipped(path, offset, rng.randrange(8)))
            assert found is not None, (member, offset)
            assert f"the checksum of its member {member} does not match" in found, (member, offset)


def test_flipped_bit_in_a_tensor_is_not_noticed_by_torch(tmp_path):
    """The twin: why there is a check of our own."""
    path, rng = written(tmp_path / "a.ckpt"), random.Random(21)
    span = spans(path)["archive/data/0"]
    for offset in [rng.choice(span) for _ in range(10)]:
        damaged = flipped(path, offset, rng.randrange(8))
        assert not same(torch.load(damaged, weights_only=True))
        assert verify.problem(damaged) is not None


def test_flipped_bit_in_the_signature_of_a_member_is_found(tmp_path):
    path = written(tmp_path / "a.ckpt")
    with zipfile.ZipFile(path) as opened:
        headers = [info.header_offset for info in opened.infolist()]
    for offset in headers:
        assert verify.problem(flipped(path, offset, 0)) is not None


def test_truncated_file_is_found_at_every_length(tmp_path):
    path, rng = written(tmp_path / "a.ckpt"), random.Random(22)
    whole = path.read_bytes()
    lengths = {1, 2, 3, 4, len(whole) - 1, len(whole) - 2, *(rng.randrange(1, len(whole)) for _ in range(200))}
    short = tmp_path / "short.ckpt"
    for length in sorted(lengths):
        short.write_bytes(whole[:length])
        assert re.search(
            rf"not an intact zip archive \({length:,} bytes|checksum of its directory", verify.problem(short)
        )


def test_block_of_zeros_in_a_tensor_is_found(tmp_path):
    path = written(tmp_path / "a.ckpt")
    data, start = bytearray(path.read_bytes()), spans(path)["archive/data/0"].start
    data[start + 4096 : start + 8192] = bytes(4096)
    path.write_bytes(data)
    assert "the bytes were changed after they were written" in str(verify.problem(path))


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "an empty file"), (b"hello", "not an intact zip archive (5 bytes"), (bytes(9999), "(9,999 bytes")],
    ids=["empty", "text", "zeros"],
)
def test_file_that_is_no_archive_is_found(tmp_path, content, expected):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    assert expected in str(verify.problem(path))
    with pytest.raises(CheckpointFileError, match=re.escape(f"{path} is not an intact checkpoint: ")):
        archive.read_metadata(path)


def test_archive_that_torch_did_not_write_is_found(tmp_path):
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w") as other:
        other.writestr("notes/readme.txt", "hello")
    assert "a zip archive, but not one" in str(verify.problem(path))
    with pytest.raises(CheckpointFileError, match="has no metadata: it was not written by checkpointable"):
        archive.read_metadata(path)


def test_member_that_is_not_listed_any_more_is_found(tmp_path):
    path = written(tmp_path / "a.ckpt")
    data = bytearray(path.read_bytes())
    last = data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x01\x02"))
    data[last + 32] += 46 + len("archive/checkpointable.json")  # its comment swallows the entry after it
    path.write_bytes(data)
    with zipfile.ZipFile(path) as opened:  # the twin: the standard library reads on without a word
        assert "archive/checkpointable.json" not in opened.namelist()
        assert opened.testzip() is None
    assert "the bytes were changed after they were written" in str(verify.problem(path))


def test_missing_file_is_a_problem_and_an_error_of_the_system(tmp_path):
    assert verify.problem(tmp_path / "none.ckpt") == "there is no such file"
    with pytest.raises(FileNotFoundError):
        archive.read_metadata(tmp_path / "none.ckpt")


def test_directory_in_place_of_a_file_is_a_problem(tmp_path):
    assert "Is a directory" in str(verify.problem(tmp_path))


def test_metadata_of_a_plain_torch_file_is_missing_with_the_reason(tmp_path):
    path = written(tmp_path / "a.ckpt", None)
    expected = f"{path} has no metadata: it was not written by checkpointable."
    with pytest.raises(CheckpointFileError, match=re.escape(expected)):
        archive.read_metadata(path)


@pytest.mark.parametrize("stored", [b"{", b"\xff\xfe", b"", b"NaN,"])
def test_metadata_that_does_not_parse_names_the_file(tmp_path, stored):
    path = written(tmp_path / "a.ckpt", None)
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("archive/checkpointable.json", stored)
    seal(path)
    with pytest.raises(CheckpointFileError, match=re.escape(f"{path} is not an intact checkpoint: ")):
        archive.read_metadata(path)


@pytest.mark.parametrize("stored", [b"[1]", b'"text"', b"3"])
def test_metadata_of_another_kind_names_the_file_and_the_kind(tmp_path, stored):
    path = written(tmp_path / "a.ckpt", None)
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("archive/checkpointable.json", stored)
    seal(path)
    with pytest.raises(CheckpointFileError, match=re.escape(f"{path} has metadata of another kind: ")):
        archive.read_metadata(path)


def test_metadata_with_a_flipped_bit_is_refused(tmp_path):
    path = written(tmp_path / "a.ckpt")
    damaged = flipped(path, spans(path)["archive/checkpointable.json"].start + 10, 1)
    with pytest.raises(CheckpointFileError, match=r"is not an intact checkpoint: the checksum of its metadata"):
        archive.read_metadata(damaged)


def test_metadata_is_read_without_touching_a_damaged_tensor(tmp_path):
    path = written(tmp_path / "a.ckpt")
    assert archive.read_metadata(flipped(path, spans(path)["archive/data/0"].start, 1)) == METADATA
