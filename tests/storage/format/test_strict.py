"""An archive that can be read in more than one way: torch and zipfile would see different checkpoints in it."""

from __future__ import annotations

import io
import resource
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from catalog.conftest import metadata
from nets import seal, write_archive

from checkpointable import CheckpointableWarning, CheckpointFileError, Checkpoints, latest
from checkpointable.storage.format import archive, verify, zip_directory

ONE, OTHER = {"weight": torch.arange(3000.0)}, {"weight": torch.zeros(3000)}


def content(checkpoint=ONE, **changed) -> bytes:
    file = io.BytesIO()
    write_archive(checkpoint, file, metadata(**changed))
    return file.getvalue()


def by_torch(checkpoint=ONE) -> bytes:
    file = io.BytesIO()
    torch.save(checkpoint, file)
    return file.getvalue()


@pytest.mark.parametrize("make", [content, by_torch])
@pytest.mark.parametrize("before", [b"x", bytes(512), content()[:5000], content(OTHER)], ids=len)
def test_bytes_before_the_archive_are_found(make, before):
    """As from a download that was begun twice; ``zipfile`` forgives them, and torch does not, or loads the first."""
    assert verify.problem_in(io.BytesIO(before + make())) is not None
    with zipfile.ZipFile(io.BytesIO(before + make())) as opened:
        assert opened.testzip() is None, "the twin"


def test_damaged_archive_before_an_intact_one_is_not_loaded(tmp_path):
    damaged = bytearray(content())
    damaged[damaged.index(torch.arange(3000.0).numpy().tobytes()[:64]) + 400] ^= 1
    path = tmp_path / "a.ckpt"
    path.write_bytes(bytes(damaged) + content())
    with pytest.warns(CheckpointableWarning, match="not where its end says"):
        assert latest(tmp_path) is None


def test_bytes_between_and_behind_the_parts_are_found():
    data = content()
    directory = zip_directory.read(io.BytesIO(data))
    between = data[: directory.start] + bytes(64) + data[directory.start :]
    for changed in (between, data + b"x", data + bytes(4096)):
        assert verify.problem_in(io.BytesIO(changed)) is not None


@pytest.mark.parametrize(
    "names",
    [
        ["archive/data.pkl", "archive/checkpointable.json", "archive/data.pkl"],
        ["archive/data.pkl", "elsewhere/checkpointable.json"],
        ["archive/data.pkl", "archive/../checkpointable.json"],
    ],
    ids=["twice", "outside", "above"],
)
def test_member_that_is_there_twice_or_outside_is_found(names):
    members: list[tuple[str, bytes]] = [(name, archive.encode(metadata())) for name in names]
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as opened:
        warnings.simplefilter("ignore")  # zipfile's of two names
        for name, data in members:
            opened.writestr(name, data)
    assert verify.problem_in(file) is not None


@pytest.mark.parametrize("megabytes", [8, 300])
def test_metadata_that_swells_is_refused_without_being_unpacked(tmp_path, megabytes):
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("archive/data.pkl", b"x")
        with opened.open("archive/checkpointable.json", "w", force_zip64=True) as member:
            for _ in range(megabytes):
                member.write(b" " * (1 << 20))
    seal(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointFileError, match="was not stored by checkpointable"):
        archive.read_metadata(path)
    with pytest.warns(CheckpointableWarning, match="skipped"):
        assert latest(tmp_path) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_directory_that_says_it_is_longer_than_any_is_not_read(tmp_path):
    path = tmp_path / "a.ckpt"
    length = 1 << 33
    with open(path, "wb") as file:  # sparse
        file.truncate(length)
        file.seek(length)
        file.write(struct.pack("<4sQHHII4Q", b"PK\6\6", 44, 0, 0, 0, 0, 1, 1, length, 0))
        file.write(struct.pack("<4sIQI", b"PK\6\7", 0, length, 1))
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 0xFFFFFFFF, 0, 0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.warns(CheckpointableWarning, match="a directory of 8,589,934,592 bytes"):
        assert latest(tmp_path) is None
    assert "a directory of 8,589,934,592 bytes" in str(Checkpoints(tmp_path).verify()[str(path)])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.parametrize(
    "changed",
    [{"epoch": 10**400}, {"created": 1e308}, {"created": -1e20}, {"batches": 2**63}, {"metrics": {"a": 10**400}}],
)
def test_number_that_no_run_has_makes_a_file_unreadable_and_no_other(tmp_path, changed):
    (tmp_path / "b.ckpt").write_bytes(content(batch=2, batches=2))
    (tmp_path / "a.ckpt").write_bytes(content(**changed))
    with pytest.warns(CheckpointableWarning, match=r"skipped .*a\.ckpt: .*metadata of a wrong type"):
        assert latest(tmp_path) == str(tmp_path / "b.ckpt")
    found = Checkpoints(tmp_path)
    assert "not readable: 1" in repr(found)
    assert "wrong type" in str(found.verify()[str(tmp_path / "a.ckpt")])


def test_intact_files_of_all_kinds_have_no_problem(tmp_path):
    for data in (content(), content({}), content({"größe": torch.zeros(0), "a": 1}), by_torch(), by_torch({})):
        assert verify.problem_in(io.BytesIO(data)) is None
    path = Path(tmp_path / "a.ckpt")
    path.write_bytes(content())
    assert verify.problem(path) is None
