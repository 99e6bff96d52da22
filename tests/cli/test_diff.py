"""``diff``: what differs, where, and by how much."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from catalog.conftest import DAMAGE
from cli import made
from nets import Net, files, loader, trainer

from checkpointable.cli.differences import differences


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two checkpoints of one real run, after one and two epochs."""
    root = tmp_path_factory.mktemp("trained")
    net = Net(dirpath=root, every_n_epochs=1, save_last_k=-1, monitor=None, save_last=False)
    trainer(root, max_epochs=2).fit(net, loader())
    return [root / name for name in files(root)]


def contents(**changed):
    whole = {
        "state_dict": {"w": torch.arange(12.0).reshape(3, 4), "b": torch.zeros(2)},
        "hyper_parameters": {"width": 8, "depth": [1, 2]},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}],
        "loops": {"n": 1},
        "checkpointable": {"settings": {"precision": "32-true"}, "best_val_loss": 1.0},
    }
    return {**whole, **changed}


def test_copies_do_not_differ_at_all(trained, command, tmp_path):
    shutil.copy(trained[0], tmp_path / "copy.ckpt")
    done = command("diff", trained[0], "copy.ckpt", "--all", "--json")
    assert (done.code, done.json["differences"]) == (0, 0)
    out = command("diff", trained[0], "copy.ckpt").out
    assert "weights: the same (2)" in out
    assert "settings: the same" in out


def test_epochs_of_a_real_run_differ_in_weights_and_optimizer_and_not_in_settings(trained, command):
    done = command("diff", *trained, "--json")
    assert done.code == 1
    sections = done.json["sections"]
    assert {it["name"] for it in sections["weights"]} == {"layer.weight", "layer.bias"}
    assert any(it["name"] == "optimizer.state.0.exp_avg" for it in sections["optimizers"])
    assert sections["settings"] == []
    assert "everything else" not in sections
    rest = command("diff", *trained, "--all", "--json").json["sections"]["everything else"]
    assert any(it["name"] == "epoch" for it in rest)


def test_flipped_element_is_found_with_its_place_and_size(command, tmp_path):
    made.write(tmp_path / "a.ckpt", contents=contents())
    flipped = torch.arange(12.0).reshape(3, 4)
    flipped[2, 1] = -4.0
    made.write(tmp_path / "b.ckpt", contents=contents(state_dict={"w": flipped, "b": torch.zeros(2)}))
    done = command("diff", "a.ckpt", "b.ckpt", "--json")
    assert (done.code, done.json["differences"]) == (1, 1)
    assert done.json["sections"]["weights"] == [
        {"name": "w", "one": "9", "other": "-4", "elements": [1, 12], "largest": 13.0, "at": [2, 1]}
    ]
    out = command("diff", "a.ckpt", "b.ckpt").out
    assert "  w  1 of 12  most at [2, 1]  by 13  9 -> -4" in out
    assert "optimizers: the same (1)" in out


def test_hyper_parameters_settings_and_optimizers_are_told_apart(command, tmp_path):
    made.write(tmp_path / "a.ckpt", contents=contents())
    other = contents(
        hyper_parameters={"width": 16, "depth": [1], "new": "x"},
        optimizer_states=[{"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 0.2}]}],
        checkpointable={"settings": {"precision": "bf16-mixed"}, "best_val_loss": 0.5},
        loops={"n": 2},
    )
    made.write(tmp_path / "b.ckpt", contents=other)
    out = command("diff", "a.ckpt", "b.ckpt").out
    for words in (
        *("weights: the same (2)", "hyper-parameters: 3 differences", "settings: 1 difference"),
        *("  width     8 -> 16", "only in A: 2", "only in B: 'x'", "'32-true' -> 'bf16-mixed'", "0.1 -> 0.2"),
    ):
        assert words in out
    assert "best_val_loss" not in out
    everything = command("diff", "a.ckpt", "b.ckpt", "--all").out
    assert "checkpointable.best_val_loss  1.0 -> 0.5" in everything
    assert "loops.n" in everything


def test_tensors_of_other_shapes_types_and_names_are_described(command, tmp_path):
    made.write(tmp_path / "a.ckpt", contents=contents(state_dict={"w": torch.ones(3), "old": torch.ones(1)}))
    new = {"w": torch.ones(4, dtype=torch.bfloat16), "new": torch.ones(2)}
    made.write(tmp_path / "b.ckpt", contents=contents(state_dict=new))
    out = command("diff", "a.ckpt", "b.ckpt").out
    for words in ("float32 [3] -> bfloat16 [4]", "only in A: float32 [1]", "only in B: float32 [2]"):
        assert words in out


def test_nan_equals_nan_and_counts_as_the_largest_difference_to_a_number():
    one, other = torch.tensor([math.nan, 1.0, 2.0]), torch.tensor([math.nan, math.nan, 7.0])
    assert list(differences(one, one.clone())) == []
    (found,) = differences(one, other)
    assert (found.elements, found.at, found.one, found.other) == ((2, 3), (1,), "1", "nan")
    assert math.isnan(found.largest)


def test_values_that_contain_themselves_are_compared_once():
    one, other = {"x": 1}, {"x": 2}
    one["self"], other["self"] = one, other
    assert [it.name for it in differences(one, other)] == ["x"]


def test_element_beyond_the_first_piece_is_found(monkeypatch):
    monkeypatch.setattr("checkpointable.cli.differences._AT_A_TIME", 4)
    one, other = torch.zeros(3, 5), torch.zeros(3, 5)
    other[0, 1], other[2, 3] = 1.0, -2.0
    (found,) = differences(one, other)
    assert (found.elements, found.largest, found.at) == ((2, 15), 2.0, (2, 3))


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.bfloat16, torch.complex64, torch.float64])
def test_elements_of_any_type_are_compared(kind):
    one = torch.zeros(2, 2).to(kind)
    other = one.clone()
    other[1, 0] = 1
    (found,) = differences(one, other)
    assert (found.elements, found.largest, found.at) == ((1, 4), 1.0, (1, 0))


def test_zero_and_minus_zero_are_the_same_numbers_in_other_bits(command, tmp_path):
    for name, value in (("a.ckpt", 0.0), ("b.ckpt", -0.0)):
        made.write(tmp_path / name, contents={"state_dict": {"w": torch.tensor([value])}})
    assert "0 of 1    by nothing  they are the same numbers" in command("diff", "a.ckpt", "b.ckpt").out
    (found,) = differences(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert (found.elements, found.largest, found.at) == ((0, 1), 0.0, None)


def test_many_differences_are_folded_unless_all_are_asked_for(command, tmp_path):
    for name, value in (("a.ckpt", 0.0), ("b.ckpt", 1.0)):
        weights = {f"layer{it}": torch.full((2,), value) for it in range(40)}
        made.write(tmp_path / name, contents={"state_dict": weights})
    out = command("diff", "a.ckpt", "b.ckpt").out
    assert "and 25 more; --all prints them" in out
    assert len(command("diff", "a.ckpt", "b.ckpt", "--all").out.splitlines()) > 40
    assert max(map(len, out.splitlines())) <= 80


def test_directories_are_compared_by_their_newest(command, tmp_path):
    made.killed_run(tmp_path / "a")
    made.killed_run(tmp_path / "b")
    answer = command("diff", "a", "b", "--json")
    assert (answer.code, answer.json["a"]["path"]) == (0, "a/epoch_6_batch_0.ckpt")


def test_remote_checkpoint_is_compared_with_its_local_copy(command, tmp_path, at_url):
    made.killed_run(tmp_path / "a")
    assert command("diff", "a", at_url(tmp_path / "a")).code == 0


def test_damaged_file_is_not_compared(command, tmp_path):
    good = made.write(tmp_path / "a.ckpt")
    DAMAGE["bit"][0](made.write(tmp_path / "b.ckpt"))
    done = command("diff", good, "b.ckpt")
    assert done.code == 1
    assert "Pass the path of an intact one" in done.err
    assert done.out == ""
