"""A file is compared with what was written into it, down to the last bit."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from checkpointable import SaveError
from checkpointable.storage import direct
from checkpointable.storage.format import verify
from checkpointable.storage.local import write
from checkpointable.storage.staging.snapshot import Snapshot


def small() -> Snapshot:
    return Snapshot({"a": torch.arange(30.0), "b": [torch.ones(3, dtype=torch.bool), torch.empty(0)]}, {"epoch": 1})


def mixed() -> Snapshot:
    """Small tensors around large ones, one of them of several blocks."""
    large = [torch.rand(20_000), torch.rand(5_000_000)]
    return Snapshot({"first": torch.ones(9), "large": large, "last": torch.ones(9)}, {"epoch": 1})


def test_each_flipped_byte_of_a_small_file_is_found() -> None:
    content = small()
    data = b"".join(content.pieces())
    assert content.problem_in(io.BytesIO(data)) is None
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        problem = content.problem_in(io.BytesIO(changed))
        assert "are not those that were written" in str(problem), place


def test_flipped_bits_of_a_large_file_are_found_with_their_place() -> None:
    content = mixed()
    data, rng = bytearray(b"".join(content.pieces())), random.Random(0)
    assert content.problem_in(io.BytesIO(data)) is None
    for _ in range(20):
        place = rng.randrange(len(data))
        data[place] ^= 16
        problem = content.problem_in(io.BytesIO(data))
        data[place] ^= 16
        assert problem is not None
        first, last = (int(word.replace(",", "")) for word in problem.split() if word[0].isdigit())
        assert first <= place <= last


@pytest.mark.parametrize("make", [small, mixed])
def test_file_that_is_shorter_or_longer_is_found(make: type[Snapshot]) -> None:
    content = make()
    data = b"".join(content.pieces())
    for length in (0, 1, len(data) // 2, len(data) - 1):
        assert "cannot be read to its end" in str(content.problem_in(io.BytesIO(data[:length])))
    assert (
        content.problem_in(io.BytesIO(data + b"\0")) == f"it is longer than the {len(data):,} bytes that were written"
    )


def test_what_was_not_written_is_no_file_of_it() -> None:
    written = b"".join(small().pieces())
    assert small().problem_in(io.BytesIO(written)) is not None


def test_file_that_equals_is_intact_by_its_own_checksums() -> None:
    content = mixed()
    assert verify.problem_in(io.BytesIO(b"".join(content.pieces()))) is None


@pytest.mark.parametrize("make", [small, mixed])
def test_disk_that_changes_a_bit_keeps_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: type[Snapshot]
) -> None:
    real = direct.write

    def changed(content: Snapshot, file: BinaryIO) -> None:
        real(content, file)
        place = content.size // 2
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))

    path = tmp_path / "a.ckpt"
    monkeypatch.setattr(direct, "write", changed)
    with pytest.raises(
        SaveError, match=r"is damaged after it was written: its bytes .* are not those that were written"
    ):
        write(make(), path, overwrite=False)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(verify, "difference", lambda file, written: None)  # the twin
    write(make(), path, overwrite=False)
    assert verify.problem(path) is not None
