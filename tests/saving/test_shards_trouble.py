"""Checkpoints in shards that are damaged, refused, not written, or read by another strategy; and one file of them."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from saving.parted import (
    ONLY_BEST,
    WHOLE,
    Parted,
    data,
    fit,
    flip,
    group_of_one,  # noqa: F401  # a fixture
    names,
    trainer,
)
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager

from checkpointable import (
    CheckpointableWarning,
    CheckpointFileError,
    Checkpoints,
    ResumeError,
    SaveError,
    best,
    latest,
    to_single_file,
)
from checkpointable.resume import shard_sums
from checkpointable.saving import verified
from checkpointable.saving.shards import StagedShards
from checkpointable.storage.format import checkpoint, shards

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("group_of_one")]


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

    def full(self, state, **options):
        copies.append(None)
        if len(copies) == 2:
            raise RuntimeError("no memory")
        return stage(self, state, **options)

    stage = DefaultStager.stage
    monkeypatch.setattr(DefaultStager, "stage", full)
    with pytest.warns(CheckpointableWarning, match=r"rank 0 cannot copy its shard; .*RuntimeError: no memory"):
        fit(tmp_path)
    assert [info.batches for info in Checkpoints(tmp_path)] == [2, 5, 7, 9, 10]


def test_nothing_is_saved_before_the_first_step_which_the_strategy_could_not_read_back(tmp_path):
    with pytest.warns(CheckpointableWarning, match="none is saved before their first one"):
        fit(tmp_path, options=ONLY_BEST, accumulate_grad_batches=3, val_check_interval=2)
    assert min(info.step for info in Checkpoints(tmp_path)) == 1


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
    with pytest.raises(FileExistsError, match=r"single\.ckpt is there already, .* as to="):
        to_single_file(folder)
    assert sorted(os.listdir(tmp_path / "straight")) == sorted([*names(tmp_path / "straight"), "last.ckpt"]), (
        "nothing else is left there"
    )


def test_damaged_or_other_directories_do_not_become_a_file(tmp_path):
    with pytest.raises(CheckpointFileError, match="is not a checkpoint in shards: there is no meta"):
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


class Several(Parted):
    """Has a weight that gets no gradient; or two optimizers in manual optimization, of which one steps late."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__(**options)
        self.kind = kind
        self.unused = torch.nn.Linear(2, 2)
        self.automatic_optimization = kind != "late"

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        if self.kind != "late":
            return loss
        first, second = self.optimizers()
        self.manual_backward(loss)
        first.step()
        if self.trainer.fit_loop.epoch_loop.batch_progress.total.ready > 5:
            second.step()
        first.zero_grad()
        second.zero_grad()
        return None

    def configure_optimizers(self) -> Any:
        if self.kind == "late":
            rates = [self.net.parameters(), self.last.parameters()]
            return [torch.optim.Adam(weights, lr=0.01) for weights in rates]
        if self.kind == "frozen":
            return torch.optim.Adam(self.parameters(), lr=0.01)
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9 if self.kind == "unused" else 0.0)


def several(where: Path, kind: str, **given: Any) -> Several:
    L.seed_everything(1, verbose=False)
    net = Several(kind, dirpath=where, save_last=False)
    net.unused.requires_grad_(kind != "frozen")
    trainer(where, {}).fit(net, data(), data(), **given)
    return net


@pytest.mark.parametrize(("kind", "first"), [("unused", None), ("late", 7), ("frozen", 2), ("stateless", 2)])
def test_what_the_strategy_could_not_read_back_is_not_saved_and_what_it_can_is_read(tmp_path, kind, first):
    with contextlib.nullcontext() if first == 2 else pytest.warns(CheckpointableWarning, match="have got no gradient"):
        straight = several(tmp_path, kind)
    found = Checkpoints(tmp_path)
    assert (found[0].batches if len(found) else None) == first
    if first is not None:
        resumed = several(tmp_path / "again", kind, ckpt_path=found[0].path)
        assert resumed.losses == straight.losses[first:]


def test_checkpoint_of_another_model_is_refused_by_an_error_of_ours(tmp_path):
    fit(tmp_path)
    with pytest.raises(ResumeError, match=r"ModelParallelStrategy cannot read .*batch_2\.ckpt: .*Missing key"):
        several(tmp_path / "other", "unused", ckpt_path=tmp_path / "epoch_0_batch_2.ckpt")


def test_sums_that_cannot_be_taken_cost_that_save_alone(tmp_path, monkeypatch):
    calls, of_rank = [], shard_sums.of_rank

    def without_memory(*arguments):
        calls.append(None)
        if len(calls) == 2:
            raise MemoryError
        return of_rank(*arguments)

    monkeypatch.setattr(shard_sums, "of_rank", without_memory)
    with pytest.warns(CheckpointableWarning, match=r"rank 0 cannot take the sums over its shard .*MemoryError"):
        fit(tmp_path)
    assert [info.batches for info in Checkpoints(tmp_path)] == [2, 5, 7, 9, 10]


def test_shard_that_rank_0_does_not_see_is_no_checkpoint(tmp_path, monkeypatch):
    """As where another machine has another disk at that path."""
    write = StagedShards._write

    def elsewhere(self, folder):
        sums = write(self, folder)
        (folder / "__0_0.distcp").unlink()
        return sums

    monkeypatch.setattr(StagedShards, "_write", elsewhere)
    with pytest.warns(CheckpointableWarning, match=r"rank 0 does not see __0_0\.distcp"), pytest.raises(SaveError):
        fit(tmp_path)
    assert names(tmp_path) == []


def test_single_file_is_neither_pruned_nor_the_best(tmp_path):
    fit(tmp_path, options={"save_top_k": 1, "monitor": "val_loss", "save_last_k": 1})
    first = best(tmp_path)
    single = to_single_file(str(first))
    assert best(tmp_path) == first
    Checkpoints(tmp_path).prune(dry_run=False)
    assert os.path.exists(single)


def test_single_file_of_an_optimizer_without_state(tmp_path):
    several(tmp_path, "stateless")
    found = torch.load(to_single_file(tmp_path / "epoch_0_batch_2.ckpt"), weights_only=True)
    assert found["optimizer_states"][0]["state"] == {}
