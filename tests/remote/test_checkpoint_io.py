"""What Lightning writes to a URL and reads from one goes through the checks, too."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from nets import durable_io
from remote.conftest import get, names, put
from remote.contents import PART

from checkpointable import CheckpointFileError, RemoteError, SaveError
from checkpointable.storage.format import archive
from checkpointable.storage.format.placeholder import Placeholder
from checkpointable.storage.remote import RemoteStore

WEIGHT = torch.arange(4000, dtype=torch.float32)
OURS = {"epoch": 1, "state_dict": {"weight": WEIGHT}, "checkpointable": {"metadata": {"epoch": 1, "kind": "manual"}}}


def same(loaded: dict) -> bool:
    return loaded["epoch"] == 1 and torch.equal(loaded["state_dict"]["weight"], WEIGHT)


@pytest.mark.parametrize("weights_only", [None, True, False])
def test_checkpoint_through_a_url_comes_back_equal(place, weights_only):
    url = f"{place}/a.ckpt"
    durable_io().save_checkpoint(OURS, url)
    assert names(place) == ["a.ckpt"]
    assert same(durable_io().load_checkpoint(url, weights_only=weights_only))
    assert archive.read_metadata(url) == {"epoch": 1, "kind": "manual"}


def test_saved_remote_file_is_the_local_one_byte_for_byte(place, tmp_path):
    durable_io().save_checkpoint(OURS, f"{place}/a.ckpt")
    durable_io().save_checkpoint(OURS, tmp_path / "a.ckpt")
    assert get(f"{place}/a.ckpt") == (tmp_path / "a.ckpt").read_bytes()


def test_save_over_a_remote_file_replaces_it(place):
    url = put(f"{place}/a.ckpt", b"old")
    durable_io().save_checkpoint(OURS, url)
    assert same(durable_io().load_checkpoint(url))


def test_remove_of_a_remote_file_deletes_it(place):
    durable_io().remove_checkpoint(put(f"{place}/a.ckpt", b"a"))
    assert names(place) == []


def test_load_of_a_remote_file_fetches_it_once(s3, wire):
    big = {**OURS, "more": torch.zeros(2 * PART, dtype=torch.uint8)}
    url = f"{s3}/a.ckpt"
    durable_io().save_checkpoint(big, url)
    wire.reset()
    assert same(durable_io().load_checkpoint(url))
    assert 2 * PART < wire.received < 2.2 * PART


def test_load_of_a_missing_remote_file_is_file_not_found(place):
    with pytest.raises(FileNotFoundError, match=r"a\.ckpt"):
        durable_io().load_checkpoint(f"{place}/a.ckpt")


def test_load_of_a_damaged_remote_file_is_refused_with_the_cure(place):
    url = f"{place}/a.ckpt"
    durable_io().save_checkpoint(OURS, url)
    data = bytearray(get(url))
    data[data.index(WEIGHT[:100].numpy().tobytes()) + 7] ^= 4
    put(url, bytes(data))
    with pytest.raises(CheckpointFileError, match=rf"cannot load .*a\.ckpt: the checksum.*\n.*latest\('{place}'\)"):
        durable_io().load_checkpoint(url)
    loaded = torch.load(io.BytesIO(bytes(data)), weights_only=True)  # the twin: torch takes it as it is
    assert not same(loaded)


@pytest.mark.parametrize("content", [b"", b"these are no weights", b"PK\3\4 cut short"])
def test_load_of_a_remote_file_that_is_no_checkpoint_is_refused_with_the_cure(place, content):
    with pytest.raises(CheckpointFileError, match=r"cannot load .*a\.ckpt: .*\n.*returns the newest that is intact"):
        durable_io().load_checkpoint(put(f"{place}/a.ckpt", content))


def test_load_of_torchs_old_format_from_a_url_works(place, tmp_path):
    torch.save(OURS, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    assert same(durable_io().load_checkpoint(put(f"{place}/a.ckpt", (tmp_path / "old.ckpt").read_bytes())))


def test_load_from_a_url_runs_no_code_by_default(place, tmp_path):
    torch.save({**OURS, "path": Path("x")}, tmp_path / "a.ckpt")
    url = put(f"{place}/a.ckpt", (tmp_path / "a.ckpt").read_bytes())
    loaded = durable_io().load_checkpoint(url)
    assert same(loaded)
    assert isinstance(loaded["path"], Placeholder)
    assert durable_io().load_checkpoint(url, weights_only=False)["path"] == Path("x")


def test_outage_is_named_when_saving_and_when_loading(s3, wire, monkeypatch):
    url = f"{s3}/a.ckpt"
    durable_io().save_checkpoint(OURS, url)
    monkeypatch.setattr(RemoteStore.__init__, "__kwdefaults__", {**RemoteStore.__init__.__kwdefaults__, "tries": 1})
    wire.cut()
    with pytest.raises(SaveError, match=r"cannot save s3://.*a\.ckpt"):
        durable_io().save_checkpoint(OURS, url)
    with pytest.raises(RemoteError, match=r"cannot reach s3://.*a\.ckpt"):
        durable_io().load_checkpoint(url)
    wire.mend()
    assert same(durable_io().load_checkpoint(url))
