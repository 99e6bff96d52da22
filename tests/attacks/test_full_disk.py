"""Training on a disk that fills up: a real one, of a few megabytes."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
import torch
from attacks.programs import At, Large, Settled, told
from invariants import assert_whole
from nets import Scripted, files, links, loader, trainer

from checkpointable import SaveError, best, latest

MB = 1 << 20
SIZE = 660_000  # bytes of a file of Large, and some


def fill(disk: Path, *, leave: int) -> None:
    """Leave so many bytes."""
    with (disk / "filler").open("ab", buffering=0) as file:
        while (free := os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize) > leave:
            file.write(bytes(min(free - leave, MB)))


def free(disk: Path) -> None:
    (disk / "filler").unlink()


def fit(net, tmp_path, things, *, batches=9, validation=None, **options):
    with told() as messages:
        trainer(tmp_path, callbacks=[Settled(), At(things)], num_sanity_val_steps=0, **options).fit(
            net, loader(batches), validation
        )
    return messages


def test_disk_that_is_full_at_the_first_save_is_said_and_the_next_one_tries_again(tmp_path, small_disk):
    disk = small_disk(8 * MB)
    things = {2: lambda: fill(disk, leave=200_000), 4: lambda: free(disk)}
    messages = fit(Large(dirpath=disk, save_interval=2, save_last_k=2), tmp_path, things, batches=5)
    ahead, missing = messages
    assert re.search(r"bytes free, and up to 4 checkpoints of [\d,]+ bytes .*: [\d,]+ are missing", ahead)
    assert re.search(
        r"epoch 0, batch 2, .* takes [\d,]+ bytes, [\d,]+ are free, [\d,]+ are missing\. Training", missing
    )
    assert "continues, older checkpoints are untouched, and the next save tries again" in missing
    assert files(disk) == ["epoch_0_batch_4.ckpt", "epoch_0_batch_5.ckpt"]
    assert_whole(disk)


def test_disk_that_is_full_at_a_later_save_keeps_the_files_that_were_there(tmp_path, small_disk):
    disk = small_disk(8 * MB)
    seen = []
    things = {
        4: lambda: fill(disk, leave=100_000),
        5: lambda: seen.append(files(disk)),
        7: lambda: (seen.append(files(disk)), free(disk)),
    }
    messages = fit(Large(dirpath=disk, save_interval=2, save_last_k=1, save_top_k=0), tmp_path, things, batches=9)
    assert seen == [["epoch_0_batch_2.ckpt"]] * 2
    assert [message.split(",")[1] for message in messages] == [" batch 4", " batch 6"]
    assert all("are missing" in message for message in messages)
    assert files(disk) == ["epoch_0_batch_9.ckpt"]
    assert links(disk) == {"last.ckpt": "epoch_0_batch_9.ckpt"}
    assert_whole(disk)


def test_disk_that_is_full_at_the_last_save_raises_and_keeps_the_older_one(tmp_path, small_disk):
    disk = small_disk(8 * MB)
    net = Large(dirpath=disk, save_interval=2)
    with pytest.raises(SaveError, match=r"are missing\. Older checkpoints are untouched: .*epoch_0_batch_4\.ckpt"):
        fit(net, tmp_path, {5: lambda: fill(disk, leave=100_000)}, batches=5)
    assert files(disk) == ["epoch_0_batch_4.ckpt"]
    assert net.last_model_path == latest(disk) == str(disk / "epoch_0_batch_4.ckpt")
    assert_whole(disk)


class Judged(Large, Scripted):
    """Large, and judged by a given series of scores."""


@pytest.mark.parametrize(
    ("leave", "told", "stay"),
    [
        (SIZE * 2 // 3, ["was reduced to its weights"], ["best_score_epoch_0.ckpt"]),
        (100_000, ["cannot be reduced to its weights", "was deleted to make room"], []),
    ],
)
def test_best_makes_room_and_the_newest_stays(tmp_path, small_disk, leave, told, stay):
    disk = small_disk(8 * MB)
    net = Judged(scores=[1.0, 2.0, 3.0], dirpath=disk, save_interval=2)
    seen = []
    things = {6: lambda: fill(disk, leave=leave), 7: lambda: seen.append(files(disk))}
    messages = fit(net, tmp_path, things, batches=9, validation=loader(1), val_check_interval=3)
    assert [part in message for part, message in zip(told, messages, strict=True)] == [True] * len(told)
    assert seen == [[*stay, "epoch_0_batch_6.ckpt"]]
    assert files(disk) == (
        [*stay, "epoch_0_batch_9.ckpt"] if stay else ["best_score_epoch_0.ckpt", "epoch_0_batch_8.ckpt"]
    )  # where the best is gone, the next score is the best of those that are kept
    assert_whole(disk)


def test_write_that_fails_after_room_was_made_leaves_links_and_attributes_at_what_is_there(
    tmp_path, small_disk, monkeypatch
):
    disk = small_disk(8 * MB)
    write = os.write
    net = Judged(scores=[1.0, 2.0, 3.0], dirpath=disk, save_interval=2)
    seen = []

    def refuse(descriptor, data):
        if batch.batches == 6:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(descriptor, data)

    def look():
        seen.append((files(disk), os.path.basename(net.last_model_path)))
        assert_whole(disk)

    batch = At({6: lambda: fill(disk, leave=100_000), 8: look})
    monkeypatch.setattr(os, "write", refuse)
    with told() as messages:
        trainer(tmp_path, callbacks=[Settled(), batch], num_sanity_val_steps=0, val_check_interval=3).fit(
            net, loader(9), loader(1)
        )
    assert len(messages) == 3
    assert "was deleted to make room" in messages[1]
    assert "epoch 0, batch 6" in messages[2]
    assert "Input/output error" in messages[2]
    assert seen == [(["epoch_0_batch_4.ckpt"], "epoch_0_batch_4.ckpt")]


class Growing(Judged):
    """Its state no longer fits from the third epoch on."""

    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        checkpoint["replay"] = torch.zeros(100_000 if self.trainer.global_step <= 6 else 1_700_000)


def test_state_that_has_outgrown_the_disk_costs_none_of_the_older_files(tmp_path, small_disk):
    disk = small_disk(8 * MB)
    options = {"save_interval": None, "every_n_epochs": 1}
    net = Growing(scores=[1.0, 2.0, 0.5, 0.4], dirpath=disk, **options)
    with pytest.raises(SaveError, match=r"are missing\. Older checkpoints are untouched: .*epoch_1_batch_3\.ckpt"):
        fit(net, tmp_path, {}, batches=3, validation=loader(1), max_epochs=4)
    assert files(disk) == ["best_score_epoch_0.ckpt", "epoch_1_batch_3.ckpt"]
    assert links(disk) == {"best.ckpt": "best_score_epoch_0.ckpt", "last.ckpt": "epoch_1_batch_3.ckpt"}
    assert net.best_model_path == best(disk) == str(disk / "best_score_epoch_0.ckpt")
    assert_whole(disk)


def test_the_only_file_does_not_make_room(tmp_path, small_disk):
    disk = small_disk(8 * MB)
    net = Large(dirpath=disk, save_interval=2, save_last_k=1, save_top_k=0, save_last=False)
    messages = fit(net, tmp_path, {4: lambda: fill(disk, leave=SIZE // 2)}, batches=5)
    assert len(messages) == 1
    assert files(disk) == ["epoch_0_batch_2.ckpt"]
    assert_whole(disk)


def test_disk_that_somebody_fills_while_a_file_is_written_keeps_the_older_one(tmp_path, small_disk, monkeypatch):
    disk = small_disk(8 * MB)
    write, writes = os.write, []

    def filling(descriptor, data):
        writes.append(len(data))
        if len(writes) == 2:
            fill(disk, leave=100_000)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", filling)
    net = Large(dirpath=disk, save_interval=2, save_top_k=0)
    messages = fit(net, tmp_path, {5: lambda: free(disk)}, batches=7)
    assert len(messages) == 1
    assert "No space left on device" in messages[0]
    assert files(disk) == ["epoch_0_batch_7.ckpt"]
    assert not list(disk.glob(".checkpointable-*"))
    assert_whole(disk)
