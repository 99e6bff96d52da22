"""The reader that ``docs/reference/file_format.md`` prints reads real files, and finds damage."""

from __future__ import annotations

import json
import zipfile
from dataclasses import fields
from typing import Any

import pytest
import torch
from documentation.pages import blocks_of, text_of
from nets import Net, load, loader, trainer

from checkpointable import Checkpoints
from checkpointable.catalog.info import FileMetadata
from checkpointable.policy.history import History, Point, SavedPoint, SessionRecord
from checkpointable.storage.format import archive
from checkpointable.storage.format.shards import MARKER, REST

PAGE = "reference/file_format.md"
TYPES = {"FloatStorage": torch.float32, "LongStorage": torch.int64, "ByteStorage": torch.uint8}
MOST_LINES = 30


@pytest.fixture(scope="module")
def code():
    return blocks_of(text_of(PAGE))[0].code


@pytest.fixture(scope="module")
def read(code):
    namespace: dict[str, Any] = {}
    exec(compile(code, PAGE, "exec"), namespace)
    return namespace["read"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    trainer(place).fit(Net(dirpath=place), loader(4, shuffle=True), loader(2))
    return place / "best_val_loss_epoch_0.ckpt"


def as_tensor(value: Any) -> torch.Tensor:
    (kind, content), offset, shape, strides, *_ = value
    whole = torch.frombuffer(bytearray(content), dtype=TYPES[kind])
    return whole.as_strided(shape, strides, offset)


def test_reader_has_thirty_lines_at_most_and_needs_only_the_standard_library(code):
    assert len(code.splitlines()) <= MOST_LINES
    assert [line for line in code.splitlines() if "import" in line] == [
        "import collections, json, pickle, zipfile, zlib"
    ]


def test_reader_gives_metadata_that_checkpoints_gives(read, path):
    [info] = [info for info in Checkpoints(path.parent) if info.path == str(path)]
    metadata, _ = read(path)
    for name in ("kind", "epoch", "batch", "step", "batches", "metrics", "created", "run_id", "exactness"):
        assert metadata[name] == getattr(info, name)
    assert metadata["score"] == {"monitor": info.monitor, "mode": info.mode, "value": info.score}


def test_reader_gives_weights_and_counters_that_torch_gives(read, path):
    _, checkpoint = read(path)
    expected = load(path)
    assert list(checkpoint) == list(expected)
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (expected["epoch"], expected["global_step"])
    assert list(checkpoint["state_dict"]) == list(expected["state_dict"])
    for name, weight in expected["state_dict"].items():
        assert torch.equal(as_tensor(checkpoint["state_dict"][name]), weight)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97, 0.995])
def test_reader_refuses_file_with_a_flipped_bit(read, path, tmp_path, share):
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as opened:
        places = [info.header_offset for info in opened.infolist()] + [opened.start_dir]
    at = int(len(content) * share)
    if any(start <= at < start + 64 for start in places):
        at += 64  # into data: a header that is changed is found by the third check
    content[at] ^= 1
    (tmp_path / "damaged.ckpt").write_bytes(content)
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        read(tmp_path / "damaged.ckpt")


def test_reader_refuses_file_to_which_a_member_was_added(read, path, tmp_path):
    other = tmp_path / "other.ckpt"
    other.write_bytes(path.read_bytes())
    with zipfile.ZipFile(other, "a") as opened:
        opened.writestr("archive/other.json", json.dumps({"epoch": 99}))
    with pytest.raises(ValueError, match="is damaged"):
        read(other)


def test_page_names_every_member_and_field():
    page = text_of(PAGE)
    of_records = (
        *fields(FileMetadata),
        *(it for kind in (History, Point, SavedPoint, SessionRecord) for it in fields(kind)),
    )
    names = {archive.MEMBER, archive.HISTORY_MEMBER, MARKER, REST, *(it.name for it in of_records)}
    assert {name for name in names if f"`{name}`" not in page} == set()
