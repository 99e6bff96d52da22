"""Checkpoints in shards, and whole files of a model that lies in parts on the ranks: saved, found, read and refused."""

from __future__ import annotations

import os

import pytest
from saving.parted import (
    ONLY_BEST,
    WHOLE,
    fit,
    group_of_one,  # noqa: F401  # a fixture
    names,
)

from checkpointable import (
    Checkpoints,
    SaveError,
    best,
    latest,
)
from checkpointable.storage.format import shards

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("group_of_one")]


def test_run_is_saved_in_directories_that_are_found_verified_and_led_to(tmp_path):
    net = fit(tmp_path)
    assert names(tmp_path) == [f"epoch_{epoch}_batch_{batch}.ckpt" for epoch in (0, 1) for batch in (2, 4, 5)][:6]
    newest = tmp_path / "epoch_1_batch_5.ckpt"
    assert {path.name for path in newest.iterdir()} == {".metadata", "__0_0.distcp", "meta.pt", shards.MARKER}
    assert latest(tmp_path) == str(newest) == net.last_model_path
    assert os.path.realpath(tmp_path / "last.ckpt") == str(newest)
    assert latest(newest) == latest(tmp_path / "last.ckpt") == str(newest)
    found = Checkpoints(tmp_path)
    assert set(found.verify().values()) == {None}
    assert [info.batches for info in found] == [2, 4, 5, 7, 9, 10]
    assert found[-1].size > sum(path.stat().st_size for path in newest.glob("*.distcp"))
    assert found[-1].exactness == "exact"


@pytest.mark.parametrize("parallel", [{}, WHOLE], ids=["shards", "whole"])
def test_resume_is_the_uninterrupted_run_and_is_shown_to_be(tmp_path, parallel, caplog):
    straight = fit(tmp_path / "straight", parallel=parallel)
    for number, name in enumerate(["epoch_0_batch_2.ckpt", "epoch_0_batch_5.ckpt"]):
        with caplog.at_level("INFO"):
            resumed = fit(
                tmp_path / str(number),
                seed=2,
                ckpt_path=tmp_path / "straight" / name,
                parallel=parallel,
                options={"strict_resume": True},
            )
        assert resumed.losses == straight.losses[-len(resumed.losses) :]
        assert len(resumed.losses) == (8, 5)[number]
        assert f"{name}: exact" in caplog.text


def test_rules_of_retention_hold_for_directories(tmp_path):
    fit(tmp_path, options={"save_last_k": 2, "save_top_k": 1, "monitor": "val_loss"})
    kept = [name for name in names(tmp_path) if name.startswith("epoch")]
    assert len(kept) <= 2
    assert best(tmp_path) is not None
    assert os.path.realpath(tmp_path / "best.ckpt") == best(tmp_path)
    assert not list(tmp_path.glob(".checkpointable-*"))
    outdated = Checkpoints(tmp_path).prune(dry_run=False)
    assert not any(os.path.exists(path) for path in outdated)


def test_fixed_name_is_never_overwritten(tmp_path):
    fit(tmp_path, options={"save_last_k": 1, "filename": "fixed"})
    (name,) = names(tmp_path)
    assert name in ("fixed.ckpt", "fixed-v1.ckpt")
    assert Checkpoints(tmp_path)[-1].batches == 10


def test_script_that_is_started_again_goes_on(tmp_path):
    fit(tmp_path, max_epochs=1)
    again = fit(tmp_path, options={"resume": "auto"})
    assert [epoch for epoch, _, _ in again.losses] == [1] * 5


def test_directory_at_a_url_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(SaveError, match=r"in shards in memory://run: .*save_distributed_checkpoint=False"):
        fit(tmp_path, options={"dirpath": "memory://run"})


def test_argument_that_does_nothing_with_parted_models_is_said_to(tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(tmp_path, max_epochs=1, options={"save_trainable_only": True})
    assert "save_trainable_only does nothing with ModelParallelStrategy" in caplog.text


def test_gradients_of_a_window_are_in_the_shards(tmp_path):
    strict = {**ONLY_BEST, "strict_resume": True}
    given = {"accumulate_grad_batches": 3, "val_check_interval": 2}
    straight = fit(tmp_path / "straight", options=ONLY_BEST, **given)
    files = [info for info in Checkpoints(tmp_path / "straight") if info.batches == 4]
    resumed = fit(tmp_path / "again", seed=2, ckpt_path=files[0].path, options=strict, **given)
    assert resumed.losses == straight.losses[4:]


def test_shards_of_weights_only_are_not_resumed_from(tmp_path):
    fit(tmp_path, options={"save_weights_only": True})
    assert all(info.weights_only for info in Checkpoints(tmp_path))
    assert latest(tmp_path) is None


def test_resumed_run_knows_its_files_and_its_branch(tmp_path):
    """Though the strategy restores it later than others do."""
    options = {"save_last_k": 2, "every_n_epochs": None, "save_interval": 1}
    fit(tmp_path, options=options, max_epochs=1)
    fit(tmp_path, options=options, ckpt_path=tmp_path / "last.ckpt")
    assert names(tmp_path) == [f"epoch_{it}.ckpt" for it in ("0_batch_5", "1_batch_4", "1_batch_5")]
    older = tmp_path / "epoch_0_batch_5.ckpt"
    branch = fit(tmp_path, options={**options, "save_on_exception": False}, ckpt_path=older, limit_train_batches=2)
    assert latest(tmp_path) == branch.last_model_path
    assert Checkpoints(tmp_path)[-1].batches == 7
