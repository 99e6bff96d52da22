"""The marker of a checkpoint in shards: what is wrong with a file that it names is found, and no pickle is opened."""

from __future__ import annotations

import json
import os
import pickle
import random
from pathlib import Path

import pytest

from checkpointable import CheckpointFileError
from checkpointable.storage import direct
from checkpointable.storage.format import checkpoint, shards

METADATA = {"epoch": 1, "metrics": {"val_loss": float("inf")}}
FILES = {
    ".metadata": b"m" * 300,
    "__0_0.distcp": bytes(range(256)) * 40,
    "__1_0.distcp": b"one" * 5000,
    "meta.pt": b"x",
}


def made(folder: Path) -> Path:
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    shards.mark(folder, METADATA, {"state_dict.weight": 7}, direct.open_file)
    return folder


@pytest.fixture
def folder(tmp_path):
    return made(tmp_path / "a.ckpt")


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_marker_says_what_the_files_hold(folder):
    marker = shards.read(folder)
    assert marker.metadata == METADATA
    assert {name: size for name, (size, _) in marker.files.items()} == {it: len(FILES[it]) for it in FILES}
    assert marker.sums == {"state_dict.weight": 7}
    assert marker.size == sum(map(len, FILES.values()))
    assert shards.problem(folder) is None
    assert checkpoint.problem(folder) is None
    assert checkpoint.read_metadata(folder) == (METADATA, marker.size)


def test_directory_without_a_marker_is_no_checkpoint(folder):
    assert shards.is_marked(folder)
    (folder / shards.MARKER).unlink()
    assert not shards.is_marked(folder)
    assert checkpoint.problem(folder) is not None


@pytest.mark.parametrize("name", [*FILES, shards.MARKER])
def test_one_flipped_bit_is_found(folder, name):
    choose = random.Random(name)
    place = folder / name
    for bit in choose.sample(range(8 * place.stat().st_size), min(60, 8 * place.stat().st_size)):
        flip(place, bit)
        assert shards.problem(folder) is not None, (name, bit)
        flip(place, bit)
    assert shards.problem(folder) is None


@pytest.mark.parametrize("name", [*FILES, shards.MARKER])
def test_file_that_is_cut_or_missing_is_named(folder, name):
    place = folder / name
    content = place.read_bytes()
    for length in {0, len(content) // 2, len(content) - 1}:
        place.write_bytes(content[:length])
        assert name in str(shards.problem(folder))
    if name != shards.MARKER:
        place.unlink()
        assert shards.problem(folder) == f"its file {name} is missing"


def test_shard_of_an_older_save_is_found(folder, tmp_path):
    older = made(tmp_path / "b.ckpt")
    (older / "__1_0.distcp").write_bytes(b"two" * 5000)
    os.replace(older / "__1_0.distcp", folder / "__1_0.distcp")
    assert "the checksum of its file __1_0.distcp does not match" in str(shards.problem(folder))


def test_shard_that_does_not_belong_to_it_is_found(folder):
    (folder / "__2_0.distcp").write_bytes(b"two" * 5000)
    assert shards.problem(folder) == "its file __2_0.distcp belongs to another save"


def test_file_of_the_system_beside_the_shards_is_no_damage(folder):
    (folder / ".DS_Store").write_bytes(b"")
    assert shards.problem(folder) is None


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{}", b"nul", b'{"crc32": "0", "checkpoint": {}}', b"[" * 100_000, b"\xff\xfe",
        b'{"crc32": "00000000", "checkpoint": {"files": {"../a": [1, 2]}, "metadata": {}, "sums": {}}}',
    ],
)  # fmt: skip
def test_marker_of_other_content_is_an_error_that_names_it(folder, text):
    (folder / shards.MARKER).write_bytes(text)
    with pytest.raises(CheckpointFileError, match=r"checkpointable\.json is not an intact marker"):
        shards.read(folder)
    assert "is not an intact marker" in str(shards.problem(folder))


def test_marker_that_names_a_file_outside_leads_nowhere(folder):
    (folder.parent / "outside").write_bytes(b"x")
    content = json.loads((folder / shards.MARKER).read_bytes())["checkpoint"]
    content["files"]["../outside"] = [1, 2363233923]
    (folder / shards.MARKER).write_bytes(shards._sealed(content))
    assert shards.problem(folder) == "its file ../outside is missing"


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_no_pickle_in_it_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.ckpt").mkdir()
    for name in (".metadata", "meta.pt"):
        (tmp_path / "b.ckpt" / name).write_bytes(pickle.dumps(Bomb()))
    shards.mark(tmp_path / "b.ckpt", METADATA, {}, direct.open_file)
    assert shards.problem(tmp_path / "b.ckpt") is None
    assert not (tmp_path / "exploded").exists()
    pickle.loads((tmp_path / "b.ckpt" / "meta.pt").read_bytes())
    assert (tmp_path / "exploded").exists(), "the twin: one that is opened runs its code"
