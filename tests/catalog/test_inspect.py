"""What one file is, whatever its bytes are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from catalog.conftest import Make

from checkpointable import CheckpointFileError
from checkpointable.catalog.info import CheckpointInfo, read_info, size_in_words
from checkpointable.catalog.scan import Unreadable, inspect, scan
from checkpointable.storage.format import verify


def test_inspect_own_file_is_described(make: Make) -> None:
    info = inspect(make("a.ckpt", epoch=1, batch=2, step=3, batches=4, score=0.5))
    assert isinstance(info, CheckpointInfo)
    assert (info.epoch, info.batch, info.step, info.batches, info.score) == (1, 2, 3, 4, 0.5)


def test_inspect_file_of_plain_lightning_is_none(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "plain.ckpt")
    assert inspect(str(tmp_path / "plain.ckpt")) is None


def test_inspect_member_lost_from_the_archives_directory_is_damage_and_no_file_of_others(make: Make) -> None:
    path = Path(make("a.ckpt"))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\1\2", 0, data.rindex(b"PK\1\2"))  # the one before ours gets a comment that swallows ours
    data[entry + 32 : entry + 34] = (data.rindex(b"PK\5\6") - data.rindex(b"PK\1\2")).to_bytes(2, "little")
    path.write_bytes(data)
    lost = inspect(str(path))
    assert isinstance(lost, Unreadable)
    assert lost.problem


def test_inspect_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inspect(str(tmp_path / "a.ckpt"))


def test_inspect_any_flipped_bit_never_raises_nor_makes_it_a_file_of_others(make: Make) -> None:
    """In the archive's directory and the metadata; what lies before is the tensors'."""
    path = Path(make("a.ckpt"))
    data = path.read_bytes()
    for place in range(data.rindex(b"PK\3\4"), len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        assert isinstance(inspect(str(path)), (CheckpointInfo, Unreadable)), place


def test_read_info_member_that_says_it_is_encrypted_raises_as_damage(make: Make) -> None:
    path = Path(make("a.ckpt"))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] ^= 1  # bit 0 of the general purpose flags of the last member, our metadata
    path.write_bytes(data)
    with pytest.raises(CheckpointFileError, match="not an intact checkpoint"):
        read_info(path)


def test_scan_any_truncation_of_a_file_is_damage_and_never_raises(make: Make) -> None:
    path = Path(make("a.ckpt"))
    data = path.read_bytes()
    for length in [0, *range(2, len(data), 7)]:
        path.write_bytes(data[:length])
        unreadable = [lost.path for lost in scan(path).unreadable]
        assert unreadable == [str(path)] or verify.problem(path), "cut inside the seal: found when it is verified"


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (208_400, "208 kB"), (999_600, "1 MB"), (5.25e12, "5.25 TB")],
)
def test_size_in_words_has_three_digits_at_most_and_the_next_unit_in_time(size_bytes: float, text: str) -> None:
    assert size_in_words(int(size_bytes)) == text
