"""A fast directory and a durable one: what is copied when, what a lost process or machine costs, and what is read."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from datetime import timedelta
from pathlib import Path

import lightning as L
import pytest
import torch
from nets import Net, Scripted, files, loader, trainer

from checkpointable import CheckpointableWarning, Checkpoints, PolicyError, SaveError, latest
from checkpointable.saving.promotion import Promotion
from checkpointable.storage.local import LocalStore


class At(L.Callback):
    """Does something at the start of a batch, counted over the epochs."""

    def __init__(self, **actions):
        self.actions = {int(name.removeprefix("batch_")): action for name, action in actions.items()}
        self.batches = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.actions.get(self.batches, lambda: None)()
        self.batches += 1


@pytest.fixture
def places(tmp_path):
    return {"fast_dirpath": tmp_path / "fast", "dirpath": tmp_path / "durable"}


@pytest.fixture
def both(places):
    return [places["fast_dirpath"], places["dirpath"]]


def copied(net) -> None:
    """Wait until nothing is being copied."""
    net._checkpointing.saver._promotion._writer.wait()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fast_dirpath": "fast"}, "fast_dirpath='fast': needs a dirpath"),
        ({"fast_dirpath": "s3://bucket/a", "dirpath": "a"}, "must be a local directory"),
        ({"upload_interval": timedelta(1), "dirpath": "a"}, "needs a fast_dirpath"),
        ({"fast_dirpath": "b", "dirpath": "a", "upload_interval": 60}, "must be a datetime.timedelta above 0"),
        ({"fast_dirpath": "a", "dirpath": "./a"}, "is the dirpath itself"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments, words):
    with pytest.raises(PolicyError, match=words):
        Net(**arguments)


def test_interval_best_and_last_are_in_both_places_at_the_end(tmp_path, places, both):
    net = Scripted(scores=[0.5, 0.7], save_interval=2, **places)
    trainer(tmp_path, max_epochs=2).fit(net, loader(5), loader(1))
    fast, durable = both
    assert files(fast) == ["best_score_epoch_0.ckpt", "epoch_1_batch_5.ckpt"]
    assert files(durable) == ["best_score_epoch_0.ckpt", "epoch_1_batch_5.ckpt"]
    assert net.best_model_path == str(durable / "best_score_epoch_0.ckpt")
    assert net.last_model_path == str(durable / "epoch_1_batch_5.ckpt")
    assert net.trainer.checkpoint_callback.dirpath == str(durable)
    assert os.readlink(durable / "last.ckpt") == "epoch_1_batch_5.ckpt"
    for name in files(fast):
        assert (fast / name).read_bytes() == (durable / name).read_bytes()


def test_interval_files_are_copied_at_the_upload_interval_only(tmp_path, places, both):
    fast, durable = both
    seen = []
    net = Net(save_interval=1, save_top_k=0, save_last=False, async_save=False, **places)
    net._checkpointing.change(upload_interval=timedelta(days=1))
    look = At(batch_4=lambda: (copied(net), seen.append((files(fast), files(durable)))))
    trainer(tmp_path, callbacks=[look]).fit(net, loader(6))
    assert seen == [(["epoch_0_batch_4.ckpt"], ["epoch_0_batch_1.ckpt"])]
    assert files(durable) == ["epoch_0_batch_6.ckpt"], "the newest is copied at the end"


class Held:
    """Copies that wait until they are let go."""

    def __init__(self, monkeypatch):
        self.go, self.begun = threading.Event(), threading.Event()
        real = Promotion._task

        def task(promotion, copy, content):
            self.begun.set()
            assert self.go.wait(600)
            return real(promotion, copy, content)

        monkeypatch.setattr(Promotion, "_task", task)


def test_file_is_not_deleted_while_it_is_copied(tmp_path, places, both, monkeypatch):
    fast, durable = both
    held, seen = Held(monkeypatch), []

    def look():
        assert held.begun.wait(600)
        seen.append(files(fast))
        held.go.set()

    net = Net(save_interval=1, save_top_k=0, save_last=False, async_save=False, **places)
    trainer(tmp_path, callbacks=[At(batch_4=look)]).fit(net, loader(7))
    assert seen == [["epoch_0_batch_1.ckpt", "epoch_0_batch_4.ckpt"]]
    assert files(fast) == files(durable) == ["epoch_0_batch_7.ckpt"]


def test_file_would_be_deleted_while_it_is_copied(tmp_path, places, both, monkeypatch):
    """The twin."""
    monkeypatch.setattr(Promotion, "_pinned", lambda promotion, *, waits: set())
    with pytest.raises(AssertionError):
        test_file_is_not_deleted_while_it_is_copied(tmp_path, places, both, monkeypatch)


def test_slow_copies_keep_each_best_that_still_is_and_no_other(tmp_path, places, both, monkeypatch):
    fast, durable = both
    held = Held(monkeypatch)
    net = Scripted(scores=[0.9, 0.8, 0.7, 0.6], save_interval=None, save_last=False, async_save=False, **places)
    seen = []
    let_go = At(batch_6=lambda: (seen.append(files(fast)), held.go.set()))
    trainer(tmp_path, max_epochs=4, callbacks=[let_go]).fit(net, loader(2), loader(1))
    assert seen == [["best_score_epoch_0.ckpt", "best_score_epoch_2.ckpt"]], "one is being copied, one is the best"
    assert files(fast) == files(durable) == ["best_score_epoch_3.ckpt"]


def test_copy_that_ends_during_a_save_leaves_no_outdated_file(tmp_path, places, both, monkeypatch):
    fast, durable = both
    held = Held(monkeypatch)
    real = Promotion._pinned

    def pinned(promotion, *, waits):
        asked = real(promotion, waits=waits)
        if asked:  # the copy ends after the save has asked
            held.go.set()
            promotion._writer.wait()
        return asked

    monkeypatch.setattr(Promotion, "_pinned", pinned)
    net = Scripted(scores=[0.9, 0.8], save_interval=None, save_last=False, async_save=False, **places)
    trainer(tmp_path, max_epochs=2).fit(net, loader(2), loader(1))
    assert files(fast) == files(durable) == ["best_score_epoch_1.ckpt"]


@pytest.mark.parametrize("ends", ["during the save", "after it"])
def test_file_of_another_run_under_the_name_of_an_outdated_one_stays(tmp_path, places, both, monkeypatch, ends):
    other = Scripted(scores=[1.0], save_interval=None, save_last=False, dirpath=tmp_path / "other")
    trainer(tmp_path, max_epochs=1).fit(other, loader(2), loader(1))
    fast, _ = both
    held, real = Held(monkeypatch), Promotion._pinned

    def pinned(promotion, *, waits):
        asked = real(promotion, waits=waits)
        if asked and not held.go.is_set():
            shutil.copy(other.best_model_path, tmp_path / "copy")
            os.replace(tmp_path / "copy", fast / "best_score_epoch_0.ckpt")
            held.go.set()
            if ends == "during the save":
                promotion._writer.wait()
        return asked

    monkeypatch.setattr(Promotion, "_pinned", pinned)
    net = Scripted(scores=[0.9, 0.8], save_interval=None, save_last=False, async_save=False, **places)
    trainer(tmp_path, max_epochs=2).fit(net, loader(2), loader(1))
    theirs = Path(other.best_model_path).read_bytes()
    assert (fast / "best_score_epoch_0.ckpt").read_bytes() == theirs


class Killed(Exception):
    """Ends the training like a kill: nothing is saved or copied any more."""


def interrupted(tmp_path, places, at, **options):
    net = Net(save_interval=1, save_on_exception=False, save_top_k=0, async_save=False, **places, **options)

    def kill():
        copied(net)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Promotion, "finish", lambda promotion: None)
        with pytest.raises(Killed):
            trainer(tmp_path, max_epochs=2, callbacks=[At(**{f"batch_{at}": kill})]).fit(net, loader(5, shuffle=True))
    return net


@pytest.mark.parametrize("lost", ["the process", "the machine"])
def test_run_that_lost_its_process_or_its_machine_is_the_same_run(tmp_path, places, both, lost):
    L.seed_everything(1)
    straight = Net(save_interval=1, dirpath=tmp_path / "straight")
    trainer(tmp_path, max_epochs=2).fit(straight, loader(5, shuffle=True))
    L.seed_everything(1)
    interrupted(tmp_path, places, 7)
    fast, durable = both
    if lost == "the machine":
        shutil.rmtree(fast)
    L.seed_everything(2)
    resumed = Net(save_interval=1, resume="auto", **places)
    trainer(tmp_path, max_epochs=2).fit(resumed, loader(5, shuffle=True))
    assert torch.equal(resumed.layer.weight, straight.layer.weight)
    assert files(durable)[-1] == "epoch_1_batch_5.ckpt"
    assert files(fast)[-1] == "epoch_1_batch_5.ckpt"


def test_run_resumed_from_the_durable_place_saves_in_the_fast_one_and_deletes_what_is_outdated_in_both(
    tmp_path, places, both
):
    fast, durable = both
    interrupted(tmp_path, places, 4)
    shutil.rmtree(fast)
    net = Net(save_interval=1, save_top_k=0, async_save=False, **places)
    trainer(tmp_path, max_epochs=2).fit(net, loader(5, shuffle=True), ckpt_path=latest(both))
    assert files(fast) == ["epoch_1_batch_5.ckpt"]
    assert len(files(durable)) <= 2, "the file resumed from stays"
    assert "epoch_1_batch_5.ckpt" in files(durable)


def test_best_that_is_only_in_the_durable_place_is_still_to_be_beaten(tmp_path, places, both):
    fast, durable = both
    options = {"save_interval": 1, "async_save": False, **places}
    trainer(tmp_path, max_epochs=1).fit(Scripted(scores=[0.1], **options), loader(3), loader(1))
    shutil.rmtree(fast)
    net = Scripted(scores=[0.5], **options)
    trainer(tmp_path, max_epochs=2).fit(net, loader(3), loader(1), ckpt_path=latest(both))
    assert [name for name in files(durable) if name.startswith("best")] == ["best_score_epoch_0.ckpt"]
    assert float(net.best_model_score) == pytest.approx(0.1)


def test_checkpoint_in_both_places_counts_once(tmp_path, places, both):
    trainer(tmp_path, max_epochs=2).fit(Scripted(scores=[0.5, 0.7], save_interval=2, **places), loader(5), loader(1))
    fast, durable = both
    assert len(Checkpoints(both)) == 2
    assert [Path(info.path).parent for info in Checkpoints(both)] == [fast, fast]
    assert [Path(info.path).parent for info in Checkpoints(both[::-1])] == [durable, durable]


def test_damaged_file_in_the_fast_place_is_replaced_by_its_copy(tmp_path, places, both):
    trainer(tmp_path).fit(Net(save_interval=2, **places), loader(5))
    newest = Path(latest(both[0]))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    with pytest.warns(CheckpointableWarning, match=f"skipped {newest}"):
        assert latest(both) == str(both[1] / newest.name)


def test_dead_attempt_of_a_machine_that_comes_back_is_not_the_newest(tmp_path, places, both):
    """It is ahead in batches, and the attempt that has replaced it is ahead in lineage."""
    fast, durable = both
    interrupted(tmp_path, {**places, "upload_interval": timedelta(days=1)}, 8)
    old = tmp_path / "of the dead machine"
    fast.rename(old)
    net = Net(save_interval=1, save_top_k=0, async_save=False, **places)
    trainer(tmp_path, max_epochs=1).fit(net, loader(5, shuffle=True), ckpt_path=latest(durable))
    assert latest([old, durable]) == str(durable / "epoch_0_batch_5.ckpt")
    assert latest(old) == str(old / "epoch_1_batch_3.ckpt")


def test_copy_that_fails_is_said_and_made_up_for(tmp_path, places, both, monkeypatch):
    fast, durable = both
    real, fails = LocalStore.write, [True]

    def write(store, content, path, *, overwrite):
        if fails[0] and store.directory == str(durable):
            raise OSError(5, os.strerror(5))
        real(store, content, path, overwrite=overwrite)

    monkeypatch.setattr(LocalStore, "write", write)
    net = Scripted(scores=[0.5, 0.7, 0.8], save_interval=1, async_save=False, **places)
    mend = At(batch_4=lambda: (copied(net), fails.clear(), fails.append(False)))
    with pytest.warns(CheckpointableWarning, match="could not be copied to .*Input/output error.*tries again"):
        trainer(tmp_path, max_epochs=3, callbacks=[mend]).fit(net, loader(2), loader(1))
    assert files(durable) == files(fast)


def test_last_that_cannot_be_copied_is_an_error_that_says_where_it_is(tmp_path, places, both, monkeypatch):
    fast, durable = both
    real = LocalStore.write

    def write(store, content, path, *, overwrite):
        if store.directory == str(durable):
            raise OSError(5, os.strerror(5))
        real(store, content, path, overwrite=overwrite)

    monkeypatch.setattr(LocalStore, "write", write)
    with (
        pytest.warns(CheckpointableWarning, match="could not be copied"),
        pytest.raises(SaveError, match=r"fast/epoch_0_batch_3\.ckpt could not be copied to .*durable"),
    ):
        trainer(tmp_path).fit(Net(save_interval=None, save_top_k=0, **places), loader(3))
    assert latest(both) == str(fast / "epoch_0_batch_3.ckpt")


def test_state_that_ctrl_c_saves_is_copied_before_fit_ends(tmp_path, places, both):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    press = At(batch_2=lambda: signal.raise_signal(signal.SIGINT))
    try:
        with pytest.raises(SystemExit):
            trainer(tmp_path, callbacks=[press]).fit(Net(save_interval=None, save_top_k=0, **places), loader(9))
    finally:
        signal.signal(signal.SIGINT, before)
    assert files(both[0]) == files(both[1]) == ["epoch_0_batch_3.ckpt"]


def test_damaged_file_is_not_copied(tmp_path, places, both):
    fast, durable = both
    net = interrupted(tmp_path, {**places, "upload_interval": timedelta(days=1)}, 3)
    newest = fast / "epoch_0_batch_3.ckpt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    waiting = net._checkpointing.saver._promotion
    assert waiting.finish() is None
    assert "is damaged, so it is not copied" in waiting.take_messages()[0]
    assert files(durable) == ["epoch_0_batch_1.ckpt"]


def test_file_written_over_in_the_fast_place_is_not_taken_for_its_older_copy(tmp_path, places, both, monkeypatch):
    fast, durable = both
    seen = []
    net = Net(save_interval=1, save_top_k=0, filename="x", async_save=False, **places)
    net._checkpointing.change(upload_interval=timedelta(days=1))
    look = At(batch_3=lambda: (copied(net), seen.append(net.last_model_path)))
    trainer(tmp_path, callbacks=[look]).fit(net, loader(5))
    assert seen == [str(fast / "x.ckpt")]
    assert [info.batch for info in Checkpoints(both)] == [5]
    assert net.last_model_path == str(durable / "x.ckpt")
