"""Directories below that of a run: copies that the user keeps there, and templates that put files there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from nets import Net, files, loader, trainer

from checkpointable import latest
from checkpointable.policy import names

FOLDERS = "epoch_{epoch}/batch_{batch}"


def fit(where: Path, epochs: int, ckpt_path: object = None, max_steps: int = -1, **options: Any) -> Net:
    """Saves after each batch, two in an epoch."""
    net = Net(**{"dirpath": where, "save_interval": 1, "save_top_k": 0, "save_last": False, **options})
    trainer(where, max_epochs=epochs, max_steps=max_steps).fit(net, loader(2), ckpt_path=ckpt_path)
    return net


def copied(where: Path) -> list[str]:
    """Copy all files into a directory below, and return their names."""
    shutil.copytree(where, where.with_name("aside"))
    shutil.copytree(where.with_name("aside"), where / "backup")
    return files(where / "backup")


@pytest.mark.parametrize("template", ["epoch_{epoch}_batch_{batch}", FOLDERS])
@pytest.mark.parametrize("resumes_from", ["copy", "original"])
def test_copies_of_all_files_in_a_folder_below_stay_after_a_resume(tmp_path, template, resumes_from):
    where = tmp_path / "run"
    fit(where, 1, filename=template, save_last_k=2)
    copies = copied(where)
    copy = Path(latest(where / "backup"))
    path = copy if resumes_from == "copy" else where / copy.relative_to(where / "backup")
    fit(where, 3, path, filename=template, save_last_k=1)
    assert files(where / "backup") == copies


def test_copies_below_are_deleted_where_only_the_name_decides(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr(names, "is_version", lambda path, base_name: True)
    where = tmp_path / "run"
    fit(where, 1, filename=FOLDERS)
    copies = copied(where)
    fit(where, 3, latest(where / "epoch_0"), filename=FOLDERS)
    assert files(where / "backup") != copies


def test_template_with_folders_keeps_as_many_after_a_resume(tmp_path):
    fit(tmp_path, 2, filename=FOLDERS, save_last_k=3)
    fit(tmp_path, -1, latest(tmp_path), filename=FOLDERS, save_last_k=3, max_steps=5)
    there = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.ckpt"))
    assert there == ["epoch_1/batch_1.ckpt", "epoch_1/batch_2.ckpt", "epoch_2/batch_1.ckpt"]


def test_template_with_folders_saves_where_it_had_saved_if_no_directory_is_given(tmp_path):
    fit(tmp_path, 1, filename=FOLDERS)
    net = fit(tmp_path, 2, latest(tmp_path), filename=FOLDERS, dirpath=None)
    assert Path(net.last_model_path).parent.parent == tmp_path


def test_latest_follows_the_fit_that_went_back_although_copies_of_later_files_lie_below(tmp_path):
    where = tmp_path / "run"
    fit(where, 2, save_last_k=-1)
    fit(where, 4, latest(where), save_last_k=-1)
    (where / "backup").mkdir()
    for path in where.glob("epoch_[123]*.ckpt"):
        shutil.move(path, where / "backup" / path.name)
    net = fit(where, 1, where / "epoch_0_batch_1.ckpt", save_last_k=-1)
    assert latest(where) == net.last_model_path
