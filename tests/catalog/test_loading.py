"""What a listed checkpoint gives: its weights, its model, what is wrong with it, one line, one row."""

from __future__ import annotations

import json
import os
import pathlib
import pickle
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
import torch
from catalog.conftest import Make, flip_a_bit, metadata
from nets import Net, loader, trainer, write_archive
from torch.distributed import checkpoint as dcp

from checkpointable import CheckpointFileError, CheckpointInfo, Checkpoints, NotLoadedError
from checkpointable.catalog import loading
from checkpointable.catalog.info import Confirmation, read_info
from checkpointable.policy.lineage import Ancestor, Lineage
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.storage import direct
from checkpointable.storage.format import shards

WEIGHTS = {"layer.weight": torch.randn(2, 2), "half": torch.zeros(3, dtype=torch.bfloat16), "count": torch.tensor(7)}


class Code:
    """Runs when it is loaded without care."""

    def __reduce__(self):
        return os.mkdir, ("was_run",)


@pytest.fixture
def trained(tmp_path: Path) -> CheckpointInfo:
    trainer(tmp_path).fit(Net(dirpath=tmp_path), loader(), loader())
    return Checkpoints(tmp_path)[-1]


@pytest.fixture
def in_shards(tmp_path: Path) -> Path:
    folder = tmp_path / "a.ckpt"
    state = {"state_dict": WEIGHTS, "optimizer_0": {"lr": 0.1, "state": {"0": {"exp_avg": torch.ones(2)}}}}
    with pytest.warns(UserWarning, match="single process"):
        dcp.save(state, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    torch.save({"pytorch-lightning_version": "2.6.6", "hyper_parameters": {}}, folder / shards.REST)
    return folder


def marked(folder: Path) -> CheckpointInfo:
    shards.mark(folder, metadata(), {}, direct.open_file)
    return read_info(folder)


def write(path: Path, checkpoint: dict) -> CheckpointInfo:
    with open(path, "x+b") as file:
        write_archive(checkpoint, file, metadata())
    return read_info(path)


def same(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_state_dict_has_the_weights_and_changing_them_changes_no_file(trained):
    expected = torch.load(trained.path, weights_only=True)["state_dict"]
    before = Path(trained.path).read_bytes()
    found = trained.state_dict()
    assert same(found, expected)
    found["layer.weight"].zero_()
    assert Path(trained.path).read_bytes() == before
    assert same(trained.state_dict(), expected)


def test_state_dict_of_a_url_has_the_weights(trained):
    url = "memory://loading/a.ckpt"
    fsspec.filesystem("memory").pipe_file("/loading/a.ckpt", Path(trained.path).read_bytes())
    (remote,) = Checkpoints(url)
    assert same(remote.state_dict(), trained.state_dict())
    assert same(remote.load(Net).state_dict(), trained.state_dict())


def test_state_dict_of_shards_has_the_weights_and_their_types(in_shards):
    found = marked(in_shards).state_dict()
    assert same(found, WEIGHTS)
    assert [it.dtype for it in found.values()] == [it.dtype for it in WEIGHTS.values()]


def test_load_gives_the_model_with_the_weights(trained):
    net = trained.load(Net, save_interval=7)
    assert isinstance(net, Net)
    assert same(net.state_dict(), trained.state_dict())
    assert net.save_interval == 7


def test_load_of_shards_gives_the_model_with_the_weights(tmp_path):
    weights, folder = Net().state_dict(), tmp_path / "a.ckpt"
    with pytest.warns(UserWarning, match="single process"):
        dcp.save({"state_dict": weights}, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    torch.save({"pytorch-lightning_version": "2.6.6"}, folder / shards.REST)
    assert same(marked(folder).load(Net).state_dict(), weights)


@pytest.mark.parametrize("use", ["state_dict", "load"])
def test_weights_of_a_damaged_file_are_refused_and_the_cure_is_named(make: Make, use: str) -> None:
    info = read_info(make("a.ckpt"))
    assert info.verify() is None
    flip_a_bit(info.path)
    assert "checksum of its member" in str(info.verify())
    with pytest.raises(
        CheckpointFileError, match=r"(?s)a\.ckpt: the checksum.*Choose another one: latest\(\) and best\(\)"
    ):
        info.state_dict() if use == "state_dict" else info.load(Net)


def test_weights_of_a_damaged_file_are_loaded_where_nothing_verifies_it(make: Make, monkeypatch) -> None:
    """The twin: torch itself does not look."""
    info = read_info(make("a.ckpt"))
    expected = info.state_dict()["weight"].clone()
    flip_a_bit(info.path)
    monkeypatch.setattr(loading, "_require_intact", lambda path, problem: None)
    assert not torch.equal(info.state_dict()["weight"], expected)


@pytest.mark.parametrize("use", ["state_dict", "load"])
def test_weights_of_damaged_shards_are_refused(in_shards, use):
    info = marked(in_shards)
    place = in_shards / "__0_0.distcp"
    place.write_bytes(place.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointFileError, match=r"(?s)__0_0\.distcp does not match.*Choose another one"):
        info.state_dict() if use == "state_dict" else info.load(Net)


def test_file_without_weights_is_refused_by_name(tmp_path):
    info = write(tmp_path / "a.ckpt", {"epoch": 1})
    with pytest.raises(CheckpointFileError, match=r"a\.ckpt: it has no state_dict\. Choose another one"):
        info.state_dict()


def test_code_beside_the_weights_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    info = write(tmp_path / "a.ckpt", {"state_dict": WEIGHTS, "hyper_parameters": {"code": Code()}})
    assert same(info.state_dict(), WEIGHTS)
    assert not Path("was_run").exists()
    torch.load(info.path, weights_only=False)  # the twin
    assert Path("was_run").exists()


def test_code_among_the_weights_is_not_run_and_refused_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    info = write(tmp_path / "a.ckpt", {"state_dict": {**WEIGHTS, "code": Code()}})
    with pytest.raises(
        NotLoadedError, match=r"from it: code\. If you trust the file, use torch\.load\(path, weights_only"
    ):
        info.state_dict()
    assert not Path("was_run").exists()


def test_code_in_the_metadata_of_shards_is_not_run_and_refused(in_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (in_shards / ".metadata").write_bytes(pickle.dumps(Code()))
    with pytest.raises(NotLoadedError, match=r"without running posix\.mkdir from it.*Choose another checkpoint"):
        marked(in_shards).state_dict()
    assert not Path("was_run").exists()


def test_metadata_of_shards_of_another_kind_is_refused(in_shards):
    (in_shards / ".metadata").write_bytes(pickle.dumps(pathlib.Path("a")))
    with pytest.raises(NotLoadedError, match=r"its \.metadata is a \w*Path\. .*Choose another checkpoint"):
        marked(in_shards).state_dict()


def test_weight_in_shards_that_is_no_tensor_is_refused_with_the_cure(tmp_path):
    with pytest.warns(UserWarning, match="single process"):
        dcp.save({"state_dict": {"extra": "x"}}, storage_writer=dcp.FileSystemWriter(tmp_path / "a.ckpt"), no_dist=True)
    (tmp_path / "a.ckpt" / shards.REST).write_bytes(b"")
    with pytest.raises(NotLoadedError, match=r"state_dict\.extra are no tensors.*to_single_file"):
        marked(tmp_path / "a.ckpt").state_dict()


def test_repr_is_one_short_line(make: Make) -> None:
    path = make("a.ckpt", kind="best", epoch=3, batch=57, step=228, score=0.25)
    text = repr(read_info(path))
    size = os.path.getsize(path) / 1000
    assert text == f"CheckpointInfo(best, epoch 3, batch 57, step 228, val_loss=0.25, {size:.3g} kB, {path!r})"
    assert "val_loss" not in repr(read_info(make("b.ckpt")))


def test_to_dict_is_flat_and_keys_of_metrics_clash_with_none(make: Make) -> None:
    given = {"epoch": 0.5, "a.b": 1.0, "attempt": 2.0}
    row = read_info(make("a.ckpt", epoch=3, metrics=given, score=0.5, reasons=["best", "kept_epoch"])).to_dict()
    assert [type(value) for value in row.values() if not isinstance(value, (str, int, float, type(None)))] == []
    assert (row["epoch"], row["metrics.epoch"], row["metrics.a.b"], row["metrics.attempt"]) == (3, 0.5, 1.0, 2.0)
    assert (row["reasons"], row["attempt"], row["generation"], row["score"]) == ("best, kept_epoch", "", 0, 0.5)
    assert (row["confirmed_batches"], row["first_difference"]) == (None, None)
    assert json.loads(json.dumps(row)) == row


def test_to_dict_tells_the_attempt_and_the_confirmation(make: Make) -> None:
    lineage = Lineage(attempt="b", generation=1, ancestors=(Ancestor(attempt="a", batches=3),))
    given = {**vars(read_info(make("a.ckpt"))), "lineage": lineage, "confirmation": Confirmation(batches=5)}
    row = CheckpointInfo(**{**given, "verdicts": (Verdict("rng", Level.EXACT, "x"),)}).to_dict()
    assert (row["attempt"], row["generation"], row["confirmed_batches"]) == ("b", 1, 5)
    assert row.keys().isdisjoint({"lineage", "confirmation", "verdicts", "metrics"})


def test_catalog_imports_neither_torch_nor_lightning():
    script = (
        "import sys; sys.modules['checkpointable'] = p = type(sys)('checkpointable');"
        f"p.__path__ = [{os.path.dirname(loading.__file__)!r} + '/..'];"
        "import checkpointable.catalog.checkpoints;"
        "print(sorted({'torch', 'lightning', 'matplotlib', 'tqdm'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert found.stdout.strip() == "[]", found.stderr
