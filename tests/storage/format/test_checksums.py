"""Reading an archive through finds what ``ZipFile.testzip`` finds, wherever the damage is."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from typing import Any

import pytest
import torch
from nets import write_archive

from checkpointable.storage.format.verify import first_damaged

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
CHECKPOINT = {"weight": torch.arange(3000.0), "bias": torch.arange(7), "größe": torch.zeros(0), "last": torch.ones(90)}


def ours() -> bytes:
    file = io.BytesIO()
    write_archive(CHECKPOINT, file, {"epoch": 1})
    return file.getvalue()


def theirs() -> bytes:
    file = io.BytesIO()
    torch.save(CHECKPOINT, file)
    return file.getvalue()


def zipped(compression: int = zipfile.ZIP_STORED, **names: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return file.getvalue()


def found(data: bytes) -> Any:
    """What our way says: a member, nothing, or that it is no archive."""
    file = io.BytesIO(data)
    try:
        with zipfile.ZipFile(file) as archive:
            return first_damaged(file, archive)
    except DAMAGE:
        return DAMAGE


def found_by_testzip(data: bytes) -> Any:
    """What the standard library's says."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.testzip()
    except DAMAGE:
        return DAMAGE


def missed(data: bytes, offsets: list[int], bits: list[int]) -> list[tuple[int, int]]:
    """The flips that ``testzip`` finds and we do not. (It does not mind a directory that contradicts itself.)"""
    wrong = []
    for offset, bit in zip(offsets, bits, strict=True):
        damaged = bytearray(data)
        damaged[offset] ^= 1 << bit
        if found(bytes(damaged)) is None and found_by_testzip(bytes(damaged)) is not None:
            wrong.append((offset, bit))
    return wrong


WHOLE = {
    "ours": ours,
    "torch's": theirs,
    "packed": lambda: zipped(zipfile.ZIP_DEFLATED, first=b"a" * 5000, second=b""),
    "others'": lambda: zipped(größe=bytes(range(256)), empty=b""),
    "empty": lambda: zipped(),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_intact_archive_has_no_damaged_member(kind):
    data = WHOLE[kind]()
    assert found(data) is None
    assert found_by_testzip(data) is None


@pytest.mark.parametrize("kind", WHOLE)
def test_flipped_bit_anywhere_is_found_where_testzip_finds_it(kind):
    data, rng = WHOLE[kind](), random.Random(7)
    offsets = [rng.randrange(len(data)) for _ in range(400)]
    assert missed(data, offsets, [rng.randrange(8) for _ in offsets]) == []


def test_flipped_bit_in_the_first_header_and_the_directory_is_found_where_testzip_finds_it():
    """Every bit of the first and the last: there a flip changes names, sizes, offsets and ways of packing."""
    data = zipped(first=bytes(range(200)), second=b"b" * 77)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.start_dir
    offsets = [offset for offset in (*range(60), *range(start, len(data))) for _ in range(8)]
    assert missed(data, offsets, [n % 8 for n in range(len(offsets))]) == []


@pytest.mark.parametrize("kind", ["ours", "torch's"])
def test_flipped_bit_in_the_data_names_the_member(kind):
    data = WHOLE[kind]()
    place = data.index(CHECKPOINT["weight"].numpy().tobytes()) + 5000
    damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    assert found(damaged) == found_by_testzip(damaged) == "archive/data/0"


@pytest.mark.parametrize("kind", WHOLE)
def test_truncated_archive_is_found_at_every_length(kind):
    data, rng = WHOLE[kind](), random.Random(8)
    for length in {0, 1, 30, len(data) // 2, len(data) - 1, *(rng.randrange(len(data)) for _ in range(60))}:
        if found_by_testzip(data[:length]) is not None:
            assert found(data[:length]) is not None, length


def test_archive_that_ends_within_a_member_is_found():
    """As a disk gives it back that lost the end of a file: the directory says more than there is."""
    data = zipped(first=b"a" * 1000)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.infolist()[0]
        file = io.BytesIO(data[:500])
        with pytest.raises(EOFError, match="it ends 535 bytes too early"):
            first_damaged(file, archive)
        with pytest.raises(EOFError, match="it ends before the header of first"):
            first_damaged(io.BytesIO(data[:20]), archive)
        info.header_offset = 3
        with pytest.raises(zipfile.BadZipFile, match="first has no valid header"):
            first_damaged(io.BytesIO(data), archive)


def test_member_with_a_name_of_an_old_code_page_is_intact():
    """Not marked as UTF-8, as old tools write it."""
    data = zipped(gr__e=b"abc")
    old = data.replace(b"gr__e", "größe".encode("cp437"))
    assert found_by_testzip(old) is None
    assert found(old) is None


@pytest.mark.parametrize("sizes", [(999, 1000), (1000, 999), (1001, 1000), (1000, 1001)])
def test_member_with_another_size_in_the_directory_is_found(sizes):
    data = zipped(first=b"a" * 1000, second=b"b")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.start_dir
    assert struct.unpack_from("<2I", data, start + 20) == (1000, 1000)
    damaged = bytearray(data)
    struct.pack_into("<2I", damaged, start + 20, *sizes)
    assert found(bytes(damaged)) is not None


def test_reader_that_gives_less_than_it_is_asked_for_is_read_on():
    class Slow(io.BytesIO):
        def readinto(self, buffer):
            return super().readinto(memoryview(buffer)[:7])

    for data, expected in ((ours(), None), (zipped(first=b"a" * 1000).replace(b"aaaa", b"aaab", 1), "first")):
        file = Slow(data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert first_damaged(file, archive) == expected
