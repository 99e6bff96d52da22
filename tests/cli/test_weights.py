"""``export`` and ``average``: weights that load without this library."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest
import torch
from catalog.conftest import DAMAGE, metadata
from cli import made
from torch.distributed import checkpoint as dcp

from checkpointable import to_single_file
from checkpointable.cli import written
from checkpointable.cli.main import main
from checkpointable.storage import direct
from checkpointable.storage.format import shards

safetensors = pytest.importorskip("safetensors.torch")

# What anybody would do with the files, where this library is not installed.
ELSEWHERE = """
import sys
sys.modules["checkpointable"] = None
import torch
from safetensors.torch import load_file, load_model

class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 3)
        self.head = torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = torch.nn.BatchNorm1d(3)

for target, load in (("a.pt", None), ("a.safetensors", load_model)):
    model = Tied()
    if load is None:
        print(model.load_state_dict(torch.load(target, weights_only=True)))
    else:
        print(load(model, target))
    assert model.head.weight is model.embedding.weight
    assert torch.equal(model.embedding.weight, torch.arange(15.0).reshape(5, 3))
print(sorted(load_file("a.safetensors")))
"""


def tied(offset: float = 0.0) -> dict[str, torch.Tensor]:
    """The weights of a model whose input and output layers are one, with batch norm."""
    embedding = torch.arange(15.0).reshape(5, 3) + offset
    return {
        "net.embedding.weight": embedding,
        "net.head.weight": embedding.detach(),
        "net.norm.weight": torch.ones(3) + offset,
        "net.norm.bias": torch.zeros(3),
        "net.norm.running_mean": torch.zeros(3) + offset,
        "net.norm.running_var": torch.ones(3),
        "net.norm.num_batches_tracked": torch.tensor(7),
        "loss.weight": torch.ones(2),
    }


def of(weights: dict[str, torch.Tensor]) -> dict[str, object]:
    return {"state_dict": weights}


def test_exported_weights_load_where_this_library_is_not_installed(command, tmp_path):
    made.write(tmp_path / "run/a.ckpt", contents=of(tied()), score=1.0, at=made.at(1))
    for target in ("a.pt", "a.safetensors"):
        done = command("export", "run", "-o", target, "--prefix", "net.", "--json")
        assert done.code == 0, done.err
        assert done.json["left_out"] == 1
    assert done.json["shared"] == {"head.weight": "embedding.weight"}
    there = subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert there.returncode == 0, there.stderr
    lines = there.stdout.splitlines()
    assert lines[:2] == ["<All keys matched successfully>", "(set(), [])"]
    assert "head.weight" not in lines[2]


def test_types_shapes_and_bits_are_kept_by_both_formats(command, tmp_path):
    weights = {
        "half": torch.tensor([1.5, float("nan"), -0.0]).bfloat16(),
        "small": torch.tensor([-128, 127], dtype=torch.int8),
        "flag": torch.tensor(True),
        "double": torch.tensor([[1e-300]], dtype=torch.float64),
        "complex": torch.tensor([1 + 2j]),
        "empty": torch.zeros(0, 3),
        "column": torch.arange(6.0).reshape(2, 3).T,
    }
    made.write(tmp_path / "a.ckpt", contents=of(weights))
    for target in ("a.pt", "a.safetensors"):
        assert command("export", "a.ckpt", "-o", target).code == 0
        loaded = torch.load(target, weights_only=True) if target == "a.pt" else safetensors.load_file(target)
        assert loaded.keys() == weights.keys()
        for name, tensor in weights.items():
            assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(bits(loaded[name]), bits(tensor))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def test_part_of_a_large_storage_is_exported_alone(command, tmp_path):
    whole = torch.arange(100_000.0)
    made.write(tmp_path / "a.ckpt", contents=of({"a.x": whole[:4], "b.y": whole[4:]}))
    assert command("export", "a.ckpt", "-o", "a.pt", "--prefix", "a.").code == 0
    assert (tmp_path / "a.pt").stat().st_size < 5000
    assert torch.equal(torch.load("a.pt", weights_only=True)["x"], whole[:4])


def test_tensors_that_overlap_without_being_one_are_written_one_by_one(command, tmp_path):
    whole = torch.arange(6.0)
    made.write(tmp_path / "a.ckpt", contents=of({"x": whole, "y": whole[:3], "z": whole.view(2, 3)}))
    answer = command("export", "a.ckpt", "-o", "a.safetensors", "--json").json
    assert answer["shared"] == {}
    loaded = safetensors.load_file("a.safetensors")
    assert [loaded[name].tolist() for name in "xyz"] == [[0, 1, 2, 3, 4, 5], [0, 1, 2], [[0, 1, 2], [3, 4, 5]]]


def test_best_is_exported_and_the_newest_when_asked(command, tmp_path):
    made.killed_run(tmp_path / "a")
    assert command("export", "a", "-o", "b.pt", "--json").json["checkpoint"]["kind"] == "best"
    assert command("export", "a", "-o", "l.pt", "--last", "--json").json["checkpoint"]["kind"] == "interval"
    out = command("export", "a", "-o", "b.pt", "--force").out
    assert "load   model.load_state_dict(torch.load('b.pt', weights_only=True))" in out


def test_file_that_is_there_is_not_written_over_without_force(command, tmp_path):
    made.killed_run(tmp_path / "a")
    (tmp_path / "b.pt").write_text("mine")
    done = command("export", "a", "-o", "b.pt")
    assert done.code == 2
    assert "b.pt is there already. Choose another name, or add --force" in done.err
    assert (tmp_path / "b.pt").read_text() == "mine"


@pytest.mark.parametrize("target", ["a.ckpt", "a", "memory://x/a.pt"])
def test_target_of_no_known_format_is_2(target, command, tmp_path):
    made.killed_run(tmp_path / "a.run")
    done = command("export", "a.run", "-o", target)
    assert done.code == 2
    assert "must be a local file that ends with one of .safetensors, .pt" in done.err


def test_prefix_that_no_name_begins_with_names_those_there_are(command, tmp_path):
    made.write(tmp_path / "a.ckpt", contents=of(tied()))
    done = command("export", "a.ckpt", "-o", "a.pt", "--prefix", "model.")
    assert done.code == 1
    assert "Pass another --prefix: loss., net." in done.err


def test_state_that_is_no_tensor_is_named(command, tmp_path):
    made.write(tmp_path / "a.ckpt", contents={"state_dict": {"x": torch.ones(1), "x._extra_state": {"n": 1}}})
    done = command("export", "a.ckpt", "-o", "a.pt")
    assert done.code == 1
    assert "x._extra_state are no tensors. Pass another checkpoint, or take what you need" in done.err


def test_damaged_file_is_not_exported(command, tmp_path):
    DAMAGE["bit"][0](made.write(tmp_path / "a.ckpt"))
    done = command("export", "a.ckpt", "-o", "a.pt")
    assert done.code == 1
    assert "none of the checkpoints there can be used. Pass the path of an intact one" in done.err
    assert not (tmp_path / "a.pt").exists()


def test_remote_checkpoint_is_exported(command, tmp_path, at_url):
    made.write(tmp_path / "run/a.ckpt", contents=of(tied()), score=1.0)
    assert command("export", at_url(tmp_path / "run"), "-o", "a.pt").code == 0
    assert torch.load("a.pt", weights_only=True)["net.head.weight"].tolist() == tied()["net.head.weight"].tolist()


def test_weights_in_shards_are_exported_and_compared(command, tmp_path):
    for name, change in (("a.ckpt", 0.0), ("b.ckpt", 0.5)):
        weights = {weight: tensor.clone() for weight, tensor in tied().items()}
        weights["net.head.weight"][0, 0] += change
        state = {**of(weights), "optimizer_0": {"state": {"a": {"step": change}}, "param_groups": [{"params": ["a"]}]}}
        with pytest.warns(UserWarning, match="single process"):
            dcp.save(state, storage_writer=dcp.FileSystemWriter(tmp_path / name), no_dist=True)
        torch.save({"hyper_parameters": {"change": change}}, tmp_path / name / shards.REST)
        shards.mark(tmp_path / name, metadata(), {}, direct.open_file)
    assert command("export", "a.ckpt", "-o", "a.pt").code == 0
    loaded = torch.load("a.pt", weights_only=True)
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {
        name: tensor.tolist() for name, tensor in tied().items()
    }
    assert command("diff", "a.ckpt", "a.ckpt").code == 0
    sections = command("diff", "a.ckpt", "b.ckpt", "--json").json["sections"]
    assert [(it["name"], it["elements"], it["at"]) for it in sections["weights"]] == [
        ("net.head.weight", [1, 15], [0, 0])
    ]
    assert [it["name"] for it in sections["optimizers"]] == ["optimizer.state.0.step"]
    assert [it["name"] for it in sections["hyper-parameters"]] == ["change"]


def test_code_in_shards_is_not_run_by_a_comparison(command, tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, ("was_run",)

    folder = tmp_path / "a.ckpt"
    state = {**of(tied()), "optimizer_0": {"state": {}, "param_groups": [{"params": [], "hook": Code()}]}}
    with pytest.warns(UserWarning, match="single process"):
        dcp.save(state, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    torch.save({"hyper_parameters": {"hook": Code()}}, folder / shards.REST)
    shards.mark(folder, metadata(), {}, direct.open_file)
    assert command("diff", "a.ckpt", "a.ckpt", "--all").code == 0
    with pytest.raises(pickle.UnpicklingError, match="mkdir"):
        to_single_file(folder)
    assert not (tmp_path / "was_run").exists()


def test_sparse_weights_go_into_a_plain_file_alone(command, tmp_path):
    made.write(tmp_path / "a.ckpt", contents=of({"x": torch.eye(3).to_sparse()}))
    done = command("export", "a.ckpt", "-o", "a.safetensors")
    assert done.code == 2
    assert "Write a file that ends with .pt" in done.err
    assert command("export", "a.ckpt", "-o", "a.pt").code == 0
    assert torch.equal(torch.load("a.pt", weights_only=True)["x"].to_dense(), torch.eye(3))


def test_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(written.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        written.write({"x": torch.ones(1)}, str(tmp_path / "a.pt"), {})
    assert list(tmp_path.iterdir()) == []


def test_safetensors_that_is_not_installed_is_2_and_says_what_to_install(command, tmp_path, monkeypatch):
    made.write(tmp_path / "a.ckpt")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    done = command("export", "a.ckpt", "-o", "a.safetensors")
    assert done.code == 2
    assert "pip install 'checkpointable[export]'" in done.err


def test_weights_without_the_frozen_part_are_exported_with_a_note(command, tmp_path):
    made.write(tmp_path / "a.ckpt", frozen_checksum="0" * 64, weights="averaged")
    out = command("export", "a.ckpt", "-o", "a.pt").out
    assert "the frozen weights are not in it" in out
    assert "these are averaged weights" in out


@pytest.fixture
def scored(tmp_path):
    """Three scored checkpoints with random weights of several types, the best one first."""
    draw = torch.Generator().manual_seed(1)
    contents = []
    for number in range(3):
        weights = {f"w.{kind}": torch.randn(999, generator=draw).to(kind) for kind in KINDS}
        contents.append({**weights, "count": torch.tensor(number), "on": torch.tensor(number == 0)})
        made.write(
            tmp_path / f"run/{number}.ckpt", contents=of(contents[-1]), score=1.0 + number, at=made.at(9 - number)
        )
    return contents


KINDS = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64)


@pytest.mark.parametrize("count", [2, 3])
def test_average_is_the_mean_in_64_bits_cast_back_to_the_last_bit(count, scored, command, tmp_path):
    assert command("average", "run", "-k", count, "-o", "mean.pt").code == 0
    loaded = torch.load("mean.pt", weights_only=True)
    for kind in KINDS:
        wide = torch.complex128 if kind.is_complex else torch.float64
        expected = (sum(it[f"w.{kind}"].to(wide) for it in scored[:count]) / count).to(kind)
        assert torch.equal(loaded[f"w.{kind}"], expected)
        assert not torch.equal(loaded[f"w.{kind}"], scored[0][f"w.{kind}"])  # the twin: it is no copy of one


def test_average_leaves_whole_numbers_as_in_the_best_and_says_so(scored, command):
    done = command("average", "run", "-o", "mean.pt", "--json")
    assert done.json["not_averaged"] == ["count", "on"]
    loaded = torch.load("mean.pt", weights_only=True)
    assert (int(loaded["count"]), bool(loaded["on"])) == (0, True)
    assert [it["score"] for it in done.json["checkpoints"]] == [1.0, 2.0, 3.0]


def test_average_keeps_tied_weights_tied_and_warns_of_batch_norm(command, tmp_path):
    for number in range(2):
        made.write(tmp_path / f"run/{number}.ckpt", contents=of(tied(number)), score=1.0, at=made.at(number))
    done = command("average", "run", "-o", "mean.pt")
    assert "torch.optim.swa_utils.update_bn(loader, model)" in " ".join(done.out.split())
    assert "arXiv:1803.05407" in done.out
    loaded = torch.load("mean.pt", weights_only=True)
    assert loaded["net.head.weight"].data_ptr() == loaded["net.embedding.weight"].data_ptr()
    assert torch.equal(loaded["net.head.weight"], tied(0.5)["net.head.weight"])
    assert command("average", "run", "-o", "mean.safetensors", "--json").json["shared"] == {
        "net.head.weight": "net.embedding.weight"
    }


def test_average_of_files_takes_them_all_also_without_a_score(command, tmp_path):
    paths = [made.write(tmp_path / f"{it}.ckpt", contents=of({"x": torch.tensor([float(it)])})) for it in range(4)]
    assert command("average", *paths, "-o", "mean.pt").code == 0
    assert torch.load("mean.pt", weights_only=True)["x"].item() == 1.5


def test_average_skips_a_damaged_file_and_takes_the_next(scored, command, tmp_path):
    DAMAGE["bit"][0](str(tmp_path / "run/0.ckpt"))
    done = command("average", "run", "-k", "2", "-o", "mean.pt", "--json")
    assert [it["score"] for it in done.json["checkpoints"]] == [2.0, 3.0]
    assert list(done.json["skipped"]) == ["run/0.ckpt"]


def test_average_of_other_runs_weights_is_none(scored, command, tmp_path):
    made.write(tmp_path / "run/z.ckpt", contents=of(scored[0]), score=0.5, run_id="other", at=made.at(1))
    done = command("average", "run", "-o", "mean.pt")
    assert done.code == 1
    assert "Train with save_top_k=2 or more, or pass the files to average" in done.err


def test_average_of_different_models_is_refused_with_the_names(command, tmp_path):
    one = made.write(tmp_path / "1.ckpt", contents=of({"x": torch.ones(2), "y": torch.ones(2)}))
    other = made.write(tmp_path / "2.ckpt", contents=of({"x": torch.ones(3), "z": torch.ones(2)}))
    done = command("average", one, other, "-o", "mean.pt")
    assert done.code == 1
    assert "of x, y, z. Pass checkpoints of one model" in done.err


def test_average_by_a_monitor_that_no_file_has_is_1(scored, command):
    done = command("average", "run", "-o", "mean.pt", "--monitor", "acc")
    assert done.code == 1
    assert "no checkpoint there has a score of 'acc'. Leave --monitor out" in done.err


@pytest.mark.parametrize("target", ["none/x.pt", "folder.pt"])
def test_export_to_a_place_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path, capsys, target):
    (tmp_path / "folder.pt").mkdir()
    assert main(["export", str(tmp_path / "gone"), "-o", str(tmp_path / target), "--force"]) == 2
    assert "must be a directory, and" in capsys.readouterr().err
