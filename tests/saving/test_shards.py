"""Checkpoints in shards, and whole files of a model that lies in parts on the ranks: saved, found, read and refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from checkpointable import (
    CheckpointableWarning,
    CheckpointFileError,
    CheckpointingModule,
    Checkpoints,
    SaveError,
    best,
    latest,
    to_single_file,
)
from checkpointable.saving import verified
from checkpointable.saving.shards import Shards
from checkpointable.storage.format import checkpoint, shards

pytestmark = pytest.mark.filterwarnings("ignore")
WHOLE = {"save_distributed_checkpoint": False}
ONLY_BEST = {"save_interval": None, "every_n_epochs": None, "save_top_k": -1, "monitor": "val_loss"}


@pytest.fixture(autouse=True)
def _group():
    before = dict(os.environ)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


class Parted(CheckpointingModule):
    """Has dropout, a running mean, and a record of its losses."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"save_interval": 2, "every_n_epochs": 1, "save_last_k": -1, "save_top_k": 0, **options})
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3))
        self.last = torch.nn.Linear(8, 1)
        self.losses: list[Any] = []

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def compute_loss(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.last(self.net(batch)).square().mean()
        if self.training:
            self.losses.append((self.current_epoch, batch_idx, float(loss).hex()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def trainer(where: Path, parallel: dict[str, Any] | None, **options: Any) -> L.Trainer:
    if parallel is not None:
        options["strategy"] = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1, **parallel)
    return L.Trainer(
        **{"accelerator": "cpu", "devices": 1, "max_epochs": 2, "logger": False, "default_root_dir": where, **options},
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def data(shuffle: bool = False) -> DataLoader:
    return DataLoader(torch.randn(20, 3, generator=torch.Generator().manual_seed(5)), batch_size=4, shuffle=shuffle)


def fit(
    where: Path,
    *,
    seed: int = 1,
    ckpt_path: Any = None,
    parallel: dict[str, Any] | None = {},  # noqa: B006  # read only
    options: dict[str, Any] | None = None,
    **given: Any,
) -> Parted:
    L.seed_everything(seed, verbose=False)
    net = Parted(**{"dirpath": where, **(options or {})})
    trainer(where, parallel, **given).fit(net, data(shuffle=True), data(), ckpt_path=ckpt_path)
    return net


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def names(where: Path) -> list[str]:
    return sorted(path.name for path in where.glob("*.ckpt") if not path.is_symlink())


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


@pytest.mark.parametrize("damaged", [".metadata", "__0_0.distcp", "meta.pt", shards.MARKER])
def test_fit_from_damaged_shards_takes_the_newest_intact_ones(tmp_path, damaged):
    fit(tmp_path)
    flip(tmp_path / "epoch_1_batch_5.ckpt" / damaged)
    with pytest.warns(CheckpointableWarning, match="skipped .*epoch_1_batch_5"):
        assert Path(str(latest(tmp_path))).name == "epoch_1_batch_4.ckpt"
    with pytest.warns(CheckpointableWarning, match=r"epoch_1_batch_5\.ckpt is damaged: .* Resuming from .*batch_4"):
        resumed = fit(tmp_path, seed=2, ckpt_path=tmp_path / "epoch_1_batch_5.ckpt")
    assert [(epoch, batch) for epoch, batch, _ in resumed.losses] == [(1, 4)]


def test_fit_from_a_damaged_whole_file_takes_the_newest_intact_one(tmp_path):
    fit(tmp_path, parallel=WHOLE)
    flip(tmp_path / "epoch_1_batch_5.ckpt")
    with pytest.warns(CheckpointableWarning, match=r"epoch_1_batch_5\.ckpt is damaged: .* Resuming from .*batch_4"):
        fit(tmp_path, seed=2, ckpt_path=tmp_path / "epoch_1_batch_5.ckpt", parallel=WHOLE)


def test_validation_of_damaged_shards_is_refused(tmp_path):
    fit(tmp_path)
    flip(tmp_path / "epoch_1_batch_5.ckpt" / ".metadata")
    with pytest.raises(CheckpointFileError, match=r"epoch_1_batch_5\.ckpt is damaged: .*\.metadata does not match"):
        trainer(tmp_path, {}).validate(Parted(), data(), ckpt_path=tmp_path / "epoch_1_batch_5.ckpt")


def test_damage_that_is_not_looked_for_is_read_and_still_not_called_exact(tmp_path, monkeypatch, caplog):
    """The twin: torch loads a flipped bit without a word, and only the sums over the tensors tell."""
    fit(tmp_path)
    folder = tmp_path / "epoch_1_batch_2.ckpt"
    content = bytearray((folder / "__0_0.distcp").read_bytes())
    bits = weight_of(tmp_path, folder)
    at = content.find(bits)
    assert at > 0
    content[at] ^= 1
    (folder / "__0_0.distcp").write_bytes(content)
    monkeypatch.setattr(verified, "intact", lambda trainer, path: path)
    with caplog.at_level("INFO"):
        fit(tmp_path / "again", seed=2, ckpt_path=folder)
    assert "weights, optimizers: approximate (state_dict.net.0.weight: not as in the shards" in caplog.text


def weight_of(where: Path, folder: Path) -> bytes:
    single = torch.load(to_single_file(folder, where / "aside" / "single.ckpt"), weights_only=True)
    return bytes(single["state_dict"]["net.0.weight"].numpy().tobytes())


def test_directory_at_a_url_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(SaveError, match=r"in shards in memory://run: .*save_distributed_checkpoint=False"):
        fit(tmp_path, options={"dirpath": "memory://run"})


def test_shard_that_cannot_be_written_costs_that_save_alone(tmp_path, monkeypatch):
    write, calls = FileSystemWriter.write_data, []

    def full(self, *arguments):
        calls.append(None)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "no room on the disk")
        return write(self, *arguments)

    monkeypatch.setattr(FileSystemWriter, "write_data", full)
    with pytest.warns(CheckpointableWarning, match=r"shards could not be written: rank 0: .*no room on the disk"):
        fit(tmp_path)
    assert [info.batches for info in Checkpoints(tmp_path)] == [2, 5, 7, 9, 10]
    assert not list(tmp_path.glob(".checkpointable-*"))


def test_rank_without_memory_for_its_copy_costs_that_save_alone(tmp_path, monkeypatch):
    copies = []

    def none(self, taken):
        copies.append(None)
        return None if len(copies) == 2 else copied(self, taken)

    copied = Shards._copy
    monkeypatch.setattr(Shards, "_copy", none)
    with pytest.warns(CheckpointableWarning, match="no memory for a copy of its shard"):
        fit(tmp_path)
    assert [info.batches for info in Checkpoints(tmp_path)] == [2, 5, 7, 9, 10]


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


def test_nothing_is_saved_before_the_first_step_which_the_strategy_could_not_read_back(tmp_path):
    with pytest.warns(CheckpointableWarning, match="none is saved before their first one"):
        fit(tmp_path, options=ONLY_BEST, accumulate_grad_batches=3, val_check_interval=2)
    assert min(info.step for info in Checkpoints(tmp_path)) == 1


def test_shards_of_weights_only_are_not_resumed_from(tmp_path):
    fit(tmp_path, options={"save_weights_only": True})
    assert all(info.weights_only for info in Checkpoints(tmp_path))
    assert latest(tmp_path) is None


def test_other_strategy_says_what_to_do_with_a_directory(tmp_path):
    fit(tmp_path)
    with pytest.raises(CheckpointFileError, match=r"only ModelParallelStrategy reads.*to_single_file\("):
        fit(tmp_path, parallel=None, ckpt_path=tmp_path / "epoch_0_batch_2.ckpt")


def test_single_file_of_shards_is_resumed_from_by_another_strategy(tmp_path):
    straight = fit(tmp_path / "straight", use_distributed_sampler=False)
    folder = tmp_path / "straight" / "epoch_0_batch_2.ckpt"
    single = to_single_file(folder)
    assert single == str(folder).removesuffix(".ckpt") + "-single.ckpt"
    assert checkpoint.problem(single) is None
    resumed = fit(tmp_path / "again", seed=2, parallel=None, ckpt_path=single, options={"strict_resume": True})
    assert resumed.losses == straight.losses[2:]
    with pytest.raises(FileExistsError):
        to_single_file(folder)
    assert sorted(os.listdir(tmp_path / "straight")) == sorted([*names(tmp_path / "straight"), "last.ckpt"]), (
        "nothing else is left there"
    )


def test_damaged_or_other_directories_do_not_become_a_file(tmp_path):
    with pytest.raises(CheckpointFileError, match="is not a directory of shards"):
        to_single_file(tmp_path)
    fit(tmp_path, max_epochs=1)
    folder = tmp_path / "epoch_0_batch_5.ckpt"
    flip(folder / "__0_0.distcp")
    with pytest.raises(CheckpointFileError, match="is damaged: the checksum of its file __0_0"):
        to_single_file(folder)


def test_verifying_leaves_other_strategies_and_directories_of_others_alone(tmp_path):
    fit(tmp_path, max_epochs=1)
    folder = tmp_path / "epoch_0_batch_5.ckpt"
    (folder / shards.MARKER).unlink()
    with pytest.warns(CheckpointableWarning, match="passed over"):
        assert Path(str(latest(tmp_path))).name == "epoch_0_batch_4.ckpt"
    parted = trainer(tmp_path, {})
    assert verified.intact(parted, str(folder)) == str(folder)
    assert verified.intact(trainer(tmp_path, None), "nowhere") == "nowhere"
