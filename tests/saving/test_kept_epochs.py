"""``keep_every_n_epochs``: the files of some epochs' ends are never deleted."""

from __future__ import annotations

import pytest
from nets import Net, files, loader, trainer

from checkpointable import Checkpoints
from checkpointable.catalog.info import read_info
from checkpointable.policy.retention import KeepForever

ONE = {"save_last": False, "save_top_k": 0, "save_last_k": 1}


def fit(tmp_path, epochs, ckpt_path=None, **options):
    net = Net(**{"dirpath": tmp_path, **ONE, **options})
    trainer(tmp_path, max_epochs=epochs).fit(net, loader(3), loader(1), ckpt_path=ckpt_path)
    return net


def epochs_of(tmp_path):
    return sorted(read_info(path).epoch for path in map(tmp_path.joinpath, files(tmp_path)))


def test_every_nth_epoch_is_saved_at_its_end_and_stays(tmp_path):
    fit(tmp_path, 5, keep_every_n_epochs=2)
    assert epochs_of(tmp_path) == [1, 3]
    assert [info.reasons for info in Checkpoints(tmp_path)] == [("epoch", "kept_epoch")] * 2
    assert {info.kind for info in Checkpoints(tmp_path)} == {"epoch"}


def test_kept_epochs_stay_beside_the_newest_and_the_best(tmp_path):
    fit(tmp_path, 6, keep_every_n_epochs=3, every_n_epochs=1, save_interval=2, save_top_k=1)
    kept = {info.epoch for info in Checkpoints(tmp_path) if "kept_epoch" in info.reasons}
    assert kept == {2, 5}
    others = [info for info in Checkpoints(tmp_path) if "kept_epoch" not in info.reasons]
    assert len(others) <= 2


def test_kept_epochs_without_the_rule_are_deleted(tmp_path, monkeypatch):
    """The twin: without the rule, only the newest stays."""
    monkeypatch.setattr(KeepForever, "kept", lambda rule, saved: [])
    fit(tmp_path, 5, keep_every_n_epochs=2)
    assert epochs_of(tmp_path) == [3]


def test_kept_epochs_need_no_other_file_to_be_kept(tmp_path):
    fit(tmp_path, 4, keep_every_n_epochs=2, save_last_k=0)
    assert epochs_of(tmp_path) == [1, 3]


@pytest.mark.parametrize("keep", [2, None])
def test_kept_epochs_stay_after_a_resume_also_without_the_argument(tmp_path, keep):
    net = fit(tmp_path, 2, keep_every_n_epochs=2)
    fit(tmp_path, 5, ckpt_path=net.last_model_path, keep_every_n_epochs=keep, every_n_epochs=1)
    assert epochs_of(tmp_path) == ([1, 3, 4] if keep else [1, 4])


def test_kept_epoch_that_is_also_the_best_stays_when_a_better_one_comes(tmp_path):
    class Better(Net):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            self.log("score", -float(self.trainer.current_epoch))

    net = Better(dirpath=tmp_path, monitor="score", keep_every_n_epochs=2, **{**ONE, "save_top_k": 1})
    trainer(tmp_path, max_epochs=4, num_sanity_val_steps=0).fit(net, loader(3), loader(1))
    assert epochs_of(tmp_path) == [1, 3]
