"""``resume="auto"`` and ``"must"``: the same command resumes, without a path written twice."""

from __future__ import annotations

import os
import shutil

import lightning as L
import pytest
from nets import Net, loader, trainer

from checkpointable import Checkpointing, CheckpointingMixin, PolicyError, ResumeError, latest
from checkpointable.saving import auto_resume


@pytest.fixture(autouse=True)
def new_process():
    """As if no fit of this process had looked anywhere."""
    auto_resume._LOOKED.clear()


@pytest.fixture
def said(caplog):
    caplog.set_level("INFO")

    def taken():
        found = [it.message for it in caplog.records if it.message.startswith("checkpointable: ")]
        caplog.clear()
        return "\n".join(found)

    return taken


def fit(where, epochs=1, *, ckpt_path=None, **options):
    net = Net(**{"dirpath": where / "ours", "resume": "auto", "monitor": None, **options})
    fitted = trainer(where, max_epochs=epochs)
    fitted.fit(net, loader(3), ckpt_path=ckpt_path)
    return fitted


def test_auto_starts_a_new_run_where_nothing_is_and_resumes_in_the_next_process(tmp_path, said):
    fit(tmp_path)
    assert f"new run: no checkpoint in {tmp_path / 'ours'}" in said()
    auto_resume._LOOKED.clear()
    fitted = fit(tmp_path, epochs=2)
    assert f"resumes after epoch 0, batch 3 of 3, step 3, from {tmp_path / 'ours'}" in said()
    assert fitted.global_step == 6


def test_second_fit_of_a_process_is_a_new_run_and_says_why(tmp_path, said):
    fit(tmp_path)
    said()
    assert fit(tmp_path).global_step == 3
    assert "new run, although there are checkpoints" in (line := said())
    assert "resume='auto' holds for the first fit of a process that saves there" in line


def test_must_refuses_to_start_anew_and_names_the_directory_and_the_cure(tmp_path):
    with pytest.raises(ResumeError, match=rf"resume='must': {tmp_path / 'ours'} does not exist.*resume='auto'"):
        fit(tmp_path, resume="must")
    assert not (tmp_path / "ours").exists()


def test_must_resumes_where_there_is_a_checkpoint(tmp_path):
    fit(tmp_path)
    auto_resume._LOOKED.clear()
    assert fit(tmp_path, epochs=2, resume="must").global_step == 6


def test_files_that_cannot_be_resumed_from_are_counted_and_a_new_run_begins(tmp_path, said):
    fit(tmp_path, save_weights_only=True)
    auto_resume._LOOKED.clear()
    said()
    assert fit(tmp_path).global_step == 3
    assert f"none in {tmp_path / 'ours'} can be resumed from: 1 with weights only" in said()


def test_given_path_wins(tmp_path, said):
    other = fit(tmp_path / "other", epochs=2)
    fit(tmp_path)
    auto_resume._LOOKED.clear()
    said()
    path = other.checkpoint_callback.last_model_path
    fit(tmp_path, epochs=3, ckpt_path=path)
    assert f"from {path}" in said()


def test_checkpoint_of_a_subdirectory_is_of_another_run(tmp_path, said):
    fit(tmp_path)
    shutil.copytree(tmp_path / "ours", tmp_path / "moved" / "ours" / "below")
    auto_resume._LOOKED.clear()
    assert fit(tmp_path / "moved").global_step == 3
    assert "new run: no checkpoint in" in said()


def test_tuner_does_not_look(tmp_path):
    fit(tmp_path)
    auto_resume._LOOKED.clear()
    net = Net(dirpath=tmp_path / "ours", resume="must", monitor=None)
    tried = L.pytorch.tuner.Tuner(trainer(tmp_path)).lr_find(net, loader(3), num_training=3)
    assert len(tried.results["loss"]) >= 3


def test_validation_does_not_look(tmp_path):
    net = Net(dirpath=tmp_path / "ours", resume="must")
    trainer(tmp_path).validate(net, loader(1), verbose=False)


@pytest.mark.parametrize("make", [Net, Checkpointing])
def test_resume_without_a_directory_is_refused_at_construction(make):
    with pytest.raises(PolicyError, match=r"resume='auto': needs a dirpath to look in"):
        make(resume="auto")
    with pytest.raises(PolicyError, match=r"resume='always': must be 'auto'"):
        make(resume="always", dirpath="here")


def test_relative_directory_is_that_of_the_construction(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = Net(dirpath="runs/../ours", monitor=None)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    trainer(tmp_path).fit(net, loader(2))
    assert os.path.dirname(net.last_model_path) == str(tmp_path / "ours")
    assert latest("not_there/../../ours") == net.last_model_path


def test_latest_says_why_there_is_nothing(tmp_path, said):
    assert latest(tmp_path / "gone") is None
    assert said() == f"checkpointable: nothing to resume: {tmp_path / 'gone'} does not exist."
    (tmp_path / "sharded.ckpt").mkdir()
    (tmp_path / "sharded.ckpt" / ".metadata").touch()
    assert latest(tmp_path) is None
    assert said().endswith(f"nothing to resume: no checkpoint in {tmp_path}.")


def test_mixin_and_callback_take_the_argument():
    assert CheckpointingMixin.__init__.__kwdefaults__["resume"] is None
    assert Checkpointing.__init__.__kwdefaults__["resume"] is None
