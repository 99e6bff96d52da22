"""The law where the model itself lies in parts on the ranks: ``ModelParallelStrategy`` with FSDP2, real processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forked import printed
from test_other_ranks import check_counts, trained

SCRIPT = Path(__file__).parent / "many_ranks.py"
FIRST = "epoch_0_batch_1.ckpt"
SHARDS: dict[str, Any] = {"parallel": {}}
WHOLE: dict[str, Any] = {"parallel": {"save_distributed_checkpoint": False}}


def outcomes(where: Path, **case: Any) -> list[tuple[str, str, list[str]]]:
    """For each file from which it is resumed: its name, what it says of itself, and what differs."""
    lines = printed(SCRIPT, where, json.dumps({"ranks": 2, **case}), where=where)
    return [(line["file"], line["verdict"], line["differences"]) for line in lines]


def test_two_ranks_resumed_from_shards_are_the_uninterrupted_run(tmp_path):
    assert outcomes(tmp_path, **SHARDS, files=[FIRST]) == [(FIRST, "exact", [])]


def test_parameter_that_each_rank_trains_by_itself_is_not_called_exact(tmp_path):
    ((_, verdict, differences),) = outcomes(tmp_path, **SHARDS, unparted=True, files=[FIRST])
    assert verdict.startswith(
        "weights: approximate (each rank trains its own last.weight, last.bias, and the file has one"
    )
    assert any(differences)


def test_rank_that_is_killed_leaves_shards_from_which_the_run_goes_on(tmp_path):
    ((file, verdict, differences),) = outcomes(tmp_path, **SHARDS, dies=5)
    assert file in ("epoch_0_batch_2.ckpt", "epoch_0_batch_3.ckpt", "epoch_0_batch_4.ckpt")
    assert (verdict, differences) == ("exact", [])


@pytest.mark.sweep
def test_shards_of_two_ranks_are_resumed_on_one_with_each_sample_once(tmp_path):
    straight, one, other, again = trained(tmp_path, "epoch_0_batch_2.ckpt", 2, 1, **SHARDS)
    check_counts(straight, one, 2)
    assert one == other
    assert again == {"ranks": 1, "verdict": "exact", "differences": [""]}


CASES: list[dict[str, Any]] = [
    *({"ranks": ranks, **kind} for ranks in (1, 2, 4) for kind in (SHARDS, WHOLE)),
    *({"ranks": ranks, "trainer": {"accumulate_grad_batches": 3, "val_check_interval": 2}} for ranks in (2, 4)),
    {"ranks": 3, "samples": 53},
    {"ranks": 4, "samples": 53, "workers": 1},
    {"workers": 2, "changes": True},
    {"manual": True},
    {"options": {"save_interval": "auto"}},
    {"options": {"save_interval": None, "every_n_train_steps": 3}},
    {"options": {"save_top_k": -1, "save_interval": None}, "trainer": {"accumulate_grad_batches": 3}},
    {"options": {"async_save": False}},
    {"options": {"save_trainable_only": True}},
    {"trainer": {"gradient_clip_val": 0.5}},
    {"trainer": {"precision": "bf16-true"}},
]


@pytest.mark.sweep
@pytest.mark.parametrize("case", CASES, ids=json.dumps)
def test_every_file_of_a_parted_model_resumes_the_uninterrupted_run(tmp_path, case):
    found = outcomes(tmp_path, **{**SHARDS, **case})
    assert len(found) > 1
    assert {(verdict, *differences) for _, verdict, differences in found} == {("exact",)}


@pytest.mark.sweep
@pytest.mark.parametrize("dies", range(3, 13))
@pytest.mark.parametrize("ranks", [2, 3])
def test_rank_that_is_killed_in_any_batch_leaves_shards_from_which_the_run_goes_on(tmp_path, ranks, dies):
    ((_, verdict, differences),) = outcomes(tmp_path, **SHARDS, ranks=ranks, dies=dies, samples=24 * ranks)
    assert (verdict, differences) == ("exact", [])


@pytest.mark.sweep
@pytest.mark.parametrize("kind", [SHARDS, WHOLE], ids=["shards", "whole"])
@pytest.mark.parametrize("batches", [2, "all"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_any_number_of_ranks_resumes_a_parted_model_from_any(tmp_path, ranks, batches, kind):
    others = [it for it in (1, 2, 4) if it != ranks]
    done = -(-50 // (4 * ranks)) if batches == "all" else batches
    straight, *found = trained(tmp_path, f"epoch_0_batch_{done}.ckpt", ranks, *others, **kind)
    for one, other, again in zip(found[::3], found[1::3], found[2::3], strict=True):
        assert one == other
        check_counts(straight, one, done)
        assert again["differences"] == [""] * again["ranks"]
