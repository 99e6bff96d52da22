"""Runs that are gone back in: what belongs to the way to here, what to a branch that was left, what to nobody."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from nets import Net, Scripted, files, load, loader, trainer

from checkpointable import Checkpoints, best, latest
from checkpointable.catalog.info import read_info
from checkpointable.policy import names
from checkpointable.policy.as_builtin import from_builtin
from checkpointable.policy.lineage import Ancestor, Lineage
from checkpointable.saving.kept_files import KeptFiles


def judged(where: Path, scores: list[float], ckpt_path: object = None, epochs: int | None = None) -> Scripted:
    """A fit in which every epoch's file is one of the best or the newest, and is kept as long as it is."""
    net = Scripted(scores, dirpath=where, save_last=False)
    done = 0 if ckpt_path is None else read_info(str(ckpt_path)).epoch + 1
    trainer(where, max_epochs=epochs or done + len(scores), num_sanity_val_steps=0).fit(
        net, loader(2), loader(1), ckpt_path=ckpt_path
    )
    return net


def test_copies_that_a_user_made_are_not_deleted_after_a_resume(tmp_path):
    where = tmp_path / "run"
    net = judged(where, [3.0, 2.0])
    shutil.copy(net.best_model_path, where / "for_the_paper.ckpt")
    os.link(net.best_model_path, where / "kept.ckpt")
    judged(where, [1.0, 0.5], ckpt_path=net.best_model_path)
    assert {"for_the_paper.ckpt", "kept.ckpt"} <= set(files(where))


def test_copies_are_deleted_where_only_the_run_decides(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr(names, "is_version", lambda path, base_name: True)
    where = tmp_path / "run"
    net = judged(where, [3.0, 2.0])
    shutil.copy(net.best_model_path, where / "a_copy.ckpt")
    judged(where, [1.0, 0.5], ckpt_path=net.best_model_path)
    assert "a_copy.ckpt" not in files(where)


def test_fits_that_start_from_one_file_leave_each_others_files_alone(tmp_path):
    start = judged(tmp_path, [9.0])
    first = judged(tmp_path, [5.0], ckpt_path=start.best_model_path)
    second = judged(tmp_path, [4.0], ckpt_path=start.best_model_path)
    third = judged(tmp_path, [3.0, 2.0], ckpt_path=second.best_model_path)
    for other in (first, second, third):
        assert os.path.exists(other.best_model_path), other.best_model_path
    assert len({first.best_model_path, second.best_model_path, third.best_model_path}) == 3


def test_file_of_a_branch_that_was_left_is_no_longer_the_best(tmp_path):
    straight = Scripted([5.0, 4.0, 1.0], dirpath=tmp_path, save_last=False, save_top_k=-1)
    trainer(tmp_path, max_epochs=3, num_sanity_val_steps=0).fit(straight, loader(2), loader(1))
    back = tmp_path / "best_score_epoch_1.ckpt"
    left = best(tmp_path)
    assert left == str(tmp_path / "best_score_epoch_2.ckpt")
    again = judged(tmp_path, [3.0, 3.5], ckpt_path=back)
    assert again.best_model_path == best(tmp_path) != left
    assert float(again.best_model_score) == 3.0
    assert os.path.exists(left)
    assert Checkpoints(tmp_path).best().score == 3.0


def test_latest_is_of_the_branch_that_was_taken_last_however_far_another_had_come(tmp_path):
    start = judged(tmp_path, [9.0])
    judged(tmp_path, [5.0, 4.0, 3.0], ckpt_path=start.best_model_path)
    back = judged(tmp_path, [6.0], ckpt_path=start.best_model_path)
    assert latest(tmp_path) == back.last_model_path
    assert read_info(back.last_model_path).epoch == 1


def test_branches_are_told_apart_by_their_fits_over_several_resumes(tmp_path):
    path, lines = None, []
    for score in (5.0, 4.0, 3.0):
        net = judged(tmp_path, [score], ckpt_path=path)
        path = net.best_model_path
        lines.append(read_info(path).lineage)
    assert [len(line.ancestors) for line in lines] == [0, 1, 2]
    assert lines[2].includes(lines[0].attempt, 2)
    assert not lines[2].includes(lines[0].attempt, 3)
    assert lines[1].ancestors == (Ancestor(attempt=lines[0].attempt, batches=2),)
    assert from_builtin(Lineage, load(path)["checkpointable"]["lineage"]) == lines[2]


def test_exception_before_anything_is_trained_in_a_later_fit_of_the_module_writes_nothing(tmp_path):
    import lightning as L

    class Raising(L.Callback):
        strikes = False

        def on_fit_start(self, trainer, pl_module):
            if self.strikes:
                raise KeyError("stop")

    raising = Raising()
    net = Net(dirpath=tmp_path, save_interval=2, save_last_k=-1, save_top_k=0)
    own = trainer(tmp_path, callbacks=[raising])
    own.fit(net, loader(4))
    before, raising.strikes = files(tmp_path), True
    with pytest.raises(KeyError):
        own.fit(net, loader(4), ckpt_path=tmp_path / "epoch_0_batch_2.ckpt")
    assert files(tmp_path) == before
    assert latest(tmp_path) == str(tmp_path / "epoch_0_batch_4.ckpt")


def test_kept_files_find_what_lies_on_the_way_by_its_name(tmp_path):
    net = judged(tmp_path, [3.0, 2.0])
    found = [read_info(path) for path in Path(tmp_path).glob("*.ckpt")]
    line = read_info(net.best_model_path).lineage
    assert all(info.belongs_to(line, str(tmp_path)) for info in found)
    assert not any(info.belongs_to(Lineage.begin(), str(tmp_path)) for info in found)
    kept = KeptFiles.found(
        net._checkpointing.options,
        [i for i in found if i.belongs_to(line, str(tmp_path))],
        net._checkpointing.progress.position,
    )
    assert kept.best_path == net.best_model_path
