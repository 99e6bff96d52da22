"""What Lightning writes and reads goes through the commit and its checks."""

from __future__ import annotations

import pickle
import random
import re
import stat
import zipfile
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from nets import durable_io

from checkpointable._errors import CheckpointableError, CheckpointFileError
from checkpointable.lightning_internals import checkpoint_io
from checkpointable.storage.format import archive, verify
from checkpointable.storage.local import LocalStore, store_at
from checkpointable.storage.staging.snapshot import Snapshot

WEIGHT = torch.arange(4000, dtype=torch.float32)
PLAIN = {
    "epoch": 1,
    "global_step": 40,
    "pytorch-lightning_version": "2.6.6",
    "state_dict": {"layer.weight": WEIGHT},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}],
    "lr_schedulers": [],
    "callbacks": {},
}
OURS = {**PLAIN, "checkpointable": {"metadata": {"epoch": 1, "kind": "interval"}}}


def same(loaded: dict) -> bool:
    return loaded["global_step"] == 40 and torch.equal(loaded["state_dict"]["layer.weight"], WEIGHT)


def saved(path: Path) -> Path:
    durable_io().save_checkpoint(OURS, path)
    return path


class Evil:
    """Unpickling it makes a directory."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.mkdir, (self.trace,))


def assert_refused_with_advice(path: Path, reason: str) -> None:
    with pytest.raises(CheckpointFileError) as caught:
        durable_io().load_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"cannot load {path}: ")
    assert reason in text
    assert f"Resume from another file: checkpointable.latest({str(path.parent)!r}) returns the newest" in text


@pytest.mark.parametrize("as_text", [True, False])
def test_checkpoint_through_our_io_comes_back_equal(tmp_path, as_text):
    path = saved(tmp_path / "below" / "a.ckpt")
    assert same(durable_io().load_checkpoint(str(path) if as_text else path))
    assert [entry.name for entry in path.parent.iterdir()] == ["a.ckpt"]


def test_checkpoint_of_ours_carries_its_metadata_as_a_member(tmp_path):
    assert archive.read_metadata(saved(tmp_path / "a.ckpt")) == {"epoch": 1, "kind": "interval"}


def test_checkpoint_without_our_key_is_written_without_metadata(tmp_path):
    durable_io().save_checkpoint(PLAIN, tmp_path / "a.ckpt")
    assert verify.problem(tmp_path / "a.ckpt") is None
    with pytest.raises(CheckpointFileError, match="it was not written by checkpointable"):
        archive.read_metadata(tmp_path / "a.ckpt")


def test_file_of_ours_loads_with_lightnings_io_and_plain_torch(tmp_path):
    path = saved(tmp_path / "a.ckpt")
    assert same(TorchCheckpointIO().load_checkpoint(path))
    assert same(torch.load(path, weights_only=True))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("weights_only", [None, True, False])
def test_file_of_plain_torch_loads_with_our_io(tmp_path, zipped, weights_only):
    path = tmp_path / "plain.ckpt"
    torch.save(PLAIN, path, _use_new_zipfile_serialization=zipped)
    assert same(durable_io().load_checkpoint(path, weights_only=weights_only))


def test_file_of_lightnings_io_loads_with_our_io(tmp_path):
    TorchCheckpointIO().save_checkpoint(PLAIN, tmp_path / "plain.ckpt")
    assert same(durable_io().load_checkpoint(tmp_path / "plain.ckpt"))


def test_load_with_a_device_as_map_location_puts_tensors_there(tmp_path):
    loaded = durable_io().load_checkpoint(saved(tmp_path / "a.ckpt"), map_location=torch.device("meta"))
    assert loaded["state_dict"]["layer.weight"].device.type == "meta"


def test_save_over_an_existing_file_replaces_it(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"old")
    assert same(durable_io().load_checkpoint(saved(path)))


def test_save_with_storage_options_is_refused_as_in_lightning(tmp_path):
    with pytest.raises(TypeError, match="implement your custom `CheckpointIO`"):
        durable_io().save_checkpoint(OURS, tmp_path / "a.ckpt", storage_options={"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_save_of_what_cannot_be_pickled_leaves_the_old_file_whole(tmp_path):
    path = saved(tmp_path / "a.ckpt")
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        durable_io().save_checkpoint({**OURS, "hook": lambda: None}, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ckpt"]


def test_write_to_a_taken_name_leaves_the_other_file_untouched(tmp_path):
    path, store = tmp_path / "a.ckpt", store_at(tmp_path)
    path.write_bytes(b"of another run")
    with pytest.raises(FileExistsError):
        store.write(Snapshot(OURS, None), str(path), overwrite=False)
    assert path.read_bytes() == b"of another run"
    store.write(Snapshot(OURS, None), str(path), overwrite=True)  # the twin: asked to, it does
    assert verify.problem(path) is None


def test_save_by_the_handler_of_a_signal_inside_a_save_writes_both_files(tmp_path, monkeypatch):
    write, inner = LocalStore.write, [tmp_path / "inner.ckpt"]

    def interrupted(*args, **kwargs):
        if inner:
            saved(inner.pop())
        write(*args, **kwargs)

    monkeypatch.setattr(LocalStore, "write", interrupted)
    saved(tmp_path / "outer.ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner.ckpt", "outer.ckpt"]


def test_remove_of_a_file_of_ours_deletes_it(tmp_path):
    durable_io().remove_checkpoint(saved(tmp_path / "a.ckpt"))
    assert list(tmp_path.iterdir()) == []


def test_load_of_a_missing_file_names_it_and_the_cure(tmp_path):
    said = f"Checkpoint file not found: {tmp_path / 'none.ckpt'}. checkpointable.latest({str(tmp_path)!r})"
    with pytest.raises(FileNotFoundError, match=re.escape(said)):
        durable_io().load_checkpoint(tmp_path / "none.ckpt")


def test_load_of_a_file_with_a_flipped_bit_is_refused_with_the_cure(tmp_path):
    path = saved(tmp_path / "a.ckpt")
    data = bytearray(path.read_bytes())
    start = data.index(WEIGHT.numpy().tobytes())
    data[start + 5000] ^= 4
    path.write_bytes(data)
    assert_refused_with_advice(path, "the checksum of its member archive/data/0 does not match")
    assert not same(TorchCheckpointIO().load_checkpoint(path))  # the twin: Lightning's own loads it without a word


@pytest.mark.parametrize("how", ["unlinked", "a directory", "another file"])
def test_file_whose_name_is_gone_once_it_is_open_is_verified_and_loaded(tmp_path, monkeypatch, how):
    path, open_file = saved(tmp_path / "a.ckpt"), checkpoint_io.open_file

    def opening(place):
        file = open_file(place)
        path.unlink()
        if how == "a directory":
            path.mkdir()
        elif how == "another file":
            path.write_bytes(b"no checkpoint")
        return file

    monkeypatch.setattr(checkpoint_io, "open_file", opening)
    assert same(durable_io().load_checkpoint(path))


def test_code_of_a_damaged_file_does_not_run_where_a_variable_of_torch_lets_files_run_code(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, trace = tmp_path / "a.ckpt", tmp_path / "trace"
    durable_io().save_checkpoint({**OURS, "evil": Evil(trace)}, path)
    bits = bytearray(path.read_bytes())
    bits[bits.index(WEIGHT.numpy().tobytes()) + 100] ^= 1
    path.write_bytes(bits)
    assert_refused_with_advice(path, "does not match")
    assert not trace.exists()


def test_file_whose_objects_are_damaged_is_not_read_by_torch(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.ckpt")
    bits = bytearray(path.read_bytes())
    bits[bits.index(b"state_dict")] ^= 1
    path.write_bytes(bits)
    monkeypatch.setattr(torch, "load", None)
    assert_refused_with_advice(path, "the checksum of its member archive/data.pkl does not match")


def test_load_of_a_truncated_file_is_refused_with_the_cure_at_every_length(tmp_path):
    path, rng = saved(tmp_path / "a.ckpt"), random.Random(7)
    whole = path.read_bytes()
    for length in sorted({2, 3, 4, 100, len(whole) - 1, *(rng.randrange(2, len(whole)) for _ in range(40))}):
        path.write_bytes(whole[:length])
        assert_refused_with_advice(path, "not an intact zip archive" if length < len(whole) - 30 else "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"hello, this is no checkpoint", "not an intact zip archive (28 bytes"),
        (bytes(4096), "not an intact zip archive (4,096 bytes"),
        (b"PK\x03\x04" + bytes(4096), "not an intact zip archive (4,100 bytes"),
    ],
    ids=["empty", "text", "zeros", "zip signature only"],
)
def test_load_of_what_is_no_checkpoint_is_refused_with_the_cure(tmp_path, content, reason):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    assert_refused_with_advice(path, reason)


def test_load_of_an_archive_that_torch_did_not_write_is_refused_with_the_cure(tmp_path):
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w") as other:
        other.writestr("notes/readme.txt", "hello")
    assert_refused_with_advice(path, "a zip archive, but not one")


def test_checkpoint_file_error_is_a_value_error_and_one_of_ours():
    assert issubclass(CheckpointFileError, ValueError)
    assert issubclass(CheckpointFileError, CheckpointableError)


@pytest.mark.parametrize("weights_only", [None, True])
def test_load_of_a_malicious_archive_executes_nothing(tmp_path, weights_only):
    path, trace = tmp_path / "evil.ckpt", tmp_path / "executed"
    torch.save({**PLAIN, "evil": Evil(trace)}, path)
    assert same(durable_io().load_checkpoint(path, weights_only=weights_only))
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the twin: the file is as bad as it claims to be
    assert trace.exists()


def test_load_of_a_malicious_bare_pickle_executes_nothing(tmp_path):
    path, trace = tmp_path / "evil.ckpt", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Evil(trace), protocol=2))
    assert_refused_with_advice(path, "not an intact zip archive")
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()


def test_metadata_of_a_malicious_archive_executes_nothing(tmp_path):
    path, trace = tmp_path / "evil.ckpt", tmp_path / "executed"
    torch.save({"evil": Evil(trace)}, path)
    assert verify.problem(path) is None
    with pytest.raises(CheckpointFileError):
        archive.read_metadata(path)
    assert not trace.exists()


def test_saved_file_is_a_regular_file_and_not_executable(tmp_path):
    mode = saved(tmp_path / "a.ckpt").stat().st_mode
    assert stat.S_ISREG(mode)
    assert not mode & 0o111
