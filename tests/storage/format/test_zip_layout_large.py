"""Where bytes lie in archives that need wide numbers, against ``torch.save``'s own."""

from __future__ import annotations

import io
import itertools
import random
import zipfile
from pathlib import Path

import pytest
import torch

from checkpointable.storage.format import zip_layout

GB = 1 << 30


def test_more_records_than_sixteen_bits_count_are_laid_out_as_torch_does() -> None:
    file = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(file)
    for number in range(66_000):
        writer.write_record(f"data/{number}", b"x", 1)
    writer.write_end_of_file()
    data = file.getvalue()
    with zipfile.ZipFile(file) as opened:
        infos, start = opened.infolist(), opened.start_dir
    places = zip_layout.lay_out(((i.filename.removeprefix("archive/"), i.file_size) for i in infos), alignment=64)
    crcs = [info.CRC for info in infos]
    end = zip_layout.directory(places, crcs, comment_size=0)
    assert data[start:] == end
    assert end[-22:][8:12] == b"\xff\xff\xff\xff"
    for place, crc in zip(places[-9000:], crcs[-9000:], strict=True):
        assert data[place.start : place.data] == place.header
        assert data[place.data + place.size : place.end] == place.descriptor(crc)


@pytest.fixture
def unlimited(tmp_path: Path) -> Path:
    """A directory where a file may be larger than the disk, as long as it is mostly holes."""
    path = tmp_path / "probe"
    try:
        with open(path, "wb") as file:
            file.truncate(16 * GB)
    except OSError:
        pytest.skip("no file of 16 GB here, not even an empty one")
    path.unlink()
    return tmp_path


@pytest.mark.parametrize(
    "sizes",
    [
        (5 * GB, 1, 70, 4096, 1 << 20),
        (4 * GB - 2, 3),
        (4 * GB - 1, 3),
        (4 * GB, 3),
        (2 * GB, 2 * GB - 3000, 5, 0, 700, 1 << 20, 64, 1, 2, 3),
        (4 * GB + 1, 4 * GB + 1, 9),
        (4 * GB - 1500, *[1] * 40),
    ],
    ids=["one of 5 GB", "just below", "at", "above", "many offsets", "two of 4 GB", "offsets around the limit"],
)
def test_headers_descriptors_and_directory_beyond_4_gb_are_what_torch_writes(
    unlimited: Path, sizes: tuple[int, ...]
) -> None:
    path = unlimited / "archive.ckpt"
    with torch.serialization.skip_data():  # memory that is allocated and never touched, data that stay holes
        torch.save([torch.empty(size, dtype=torch.uint8) for size in sizes], path)
    with zipfile.ZipFile(path) as opened, open(path, "rb") as file:
        infos = opened.infolist()
        members = [(info.filename.removeprefix("archive/"), info.file_size) for info in infos]
        places = zip_layout.lay_out(members, alignment=64)
        assert [(place.name.decode(), place.start) for place in places] == [
            (i.filename, i.header_offset) for i in infos
        ]
        for place, info in zip(places, infos, strict=True):
            file.seek(place.start)
            assert file.read(place.data - place.start) == place.header, info.filename
            file.seek(place.data + place.size)
            assert file.read(place.end - place.data - place.size) == place.descriptor(info.CRC), info.filename
        file.seek(opened.start_dir)
        end = zip_layout.directory(places, [info.CRC for info in infos], comment_size=0)
        assert opened.start_dir == places[-1].end
        assert file.read() == end
        assert len(end) == zip_layout.directory_size(places)


def test_places_follow_one_another_without_a_gap() -> None:
    members = [(f"data/{number}", size) for number, size in enumerate((0, 1, 63, 64, 65, 5 * GB, 0, 3))]
    places = zip_layout.lay_out(members, alignment=64)
    assert all(one.end == other.start for one, other in itertools.pairwise(places))
    assert all(place.data % 64 == 0 and len(place.header) == place.data - place.start for place in places)
    assert all(len(place.descriptor(7)) == place.end - place.data - place.size for place in places)
    assert all(place.name.startswith(b"archive/data/") for place in places)


def test_archives_that_begin_as_the_one_before_are_laid_out_as_if_there_had_been_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = random.Random(1)
    members = [(f"data/{number}", draw.choice((0, 1, 60, 5 * GB))) for number in range(20)]
    for _ in range(300):
        at = draw.randrange(len(members))
        changed = (draw.choice(("data/7", "version")), draw.choice((0, 2, 61, 64, 4 * GB)))
        members[at : at + draw.choice((0, 1, 2))] = [changed] * draw.choice((0, 1, 1, 2))
        alignment = draw.choice((64, 64, 128))
        places = zip_layout.lay_out(members, alignment=alignment)
        with monkeypatch.context() as without:
            without.setattr(zip_layout, "_LATEST", {})
            alone = zip_layout.lay_out(members, alignment=alignment)
        assert [_bytes(it) for it in places] == [_bytes(it) for it in alone]
        assert zip_layout.directory_size(places) == len(zip_layout.directory(places, [0] * len(places), comment_size=0))


def _bytes(place: zip_layout.Place) -> tuple[object, ...]:
    return place.start, place.data, place.end, place.header, place.descriptor(5), place.entry(5)


def test_checksum_of_small_data_is_that_of_the_bytes_in_the_file_though_another_thread_changes_the_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = bytearray(b"0" * 100)
    real = zip_layout.crc32

    def late(data: bytes, start: int = 0) -> int:
        source[:] = b"1" * 100
        return real(data, start)

    monkeypatch.setattr(zip_layout, "crc32", late)
    places = zip_layout.lay_out([("data/0", 100), ("version", 2)], alignment=64)
    file = io.BytesIO(b"".join(zip_layout.pieces(places, [memoryview(source), b"3\n"], sealed=False)))
    with zipfile.ZipFile(file) as opened:
        assert opened.read("archive/data/0") == b"0" * 100
