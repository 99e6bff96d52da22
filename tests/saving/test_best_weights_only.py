"""``save_weights_only="best"``: the best checkpoints hold weights only, and the newest one everything."""

from __future__ import annotations

import os

import pytest
from nets import Net, load, loader, trainer

from checkpointable import Checkpoints, ResumeError, SaveError, best, latest
from checkpointable.policy.options import Options
from checkpointable.storage import commit


class Improving(Net):
    """Its validation is better each time."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", 1.0 / (1 + self.current_epoch))


def fit(where, epochs=3, *, ckpt_path=None, **options):
    net = Improving(**{"dirpath": where, "save_weights_only": "best", "every_n_epochs": 1, **options})
    trainer(where, max_epochs=epochs).fit(net, loader(3), loader(1), ckpt_path=ckpt_path)
    return net


def contents(where):
    """Name, and whether it holds weights only, of each file."""
    return {os.path.basename(info.path): info.weights_only for info in Checkpoints(where)}


def test_best_files_hold_weights_only_and_the_newest_file_everything(tmp_path):
    net = fit(tmp_path, save_top_k=-1)
    assert contents(tmp_path) == {
        "best_val_loss_epoch_0.ckpt": True,
        "best_val_loss_epoch_1.ckpt": True,
        "best_val_loss_epoch_2.ckpt": True,
        "epoch_2_batch_3.ckpt": False,
    }
    assert "optimizer_states" not in load(best(tmp_path))
    assert "optimizer_states" in load(latest(tmp_path))
    assert net.best_model_path == best(tmp_path)
    assert net.last_model_path == latest(tmp_path)
    links = {role: os.path.basename(os.path.realpath(tmp_path / f"{role}.ckpt")) for role in ("last", "best")}
    assert links == {"last": "epoch_2_batch_3.ckpt", "best": "best_val_loss_epoch_2.ckpt"}


def test_resumed_run_knows_the_best_files_and_deletes_those_that_are_outdated(tmp_path):
    fit(tmp_path, epochs=2)
    fit(tmp_path, epochs=3, ckpt_path=latest(tmp_path))
    assert contents(tmp_path)["best_val_loss_epoch_2.ckpt"]
    assert "best_val_loss_epoch_1.ckpt" not in contents(tmp_path)
    assert trainer(tmp_path).validate(Improving(), loader(1), ckpt_path=best(tmp_path), verbose=False)


@pytest.mark.parametrize("save_last_k", [0, 1])
def test_best_checkpoint_alone_brings_the_newest_file_to_resume_from_with_it(tmp_path, save_last_k):
    net = fit(tmp_path, every_n_epochs=None, save_last=False, save_top_k=2, save_last_k=save_last_k)
    assert contents(tmp_path) == {
        "best_val_loss_epoch_1.ckpt": True,
        "best_val_loss_epoch_2.ckpt": True,
        "epoch_2_batch_3.ckpt": False,
    }
    assert Checkpoints(tmp_path).latest().kind == "newest"
    assert latest(tmp_path) == net.last_model_path


def test_run_without_the_newest_file_beside_the_best_could_not_resume(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr(Options, "files_for", lambda options, reasons: [reasons])
    fit(tmp_path, every_n_epochs=None, save_last=False)
    assert latest(tmp_path) is None


def test_best_file_is_there_before_the_newest_and_none_is_written_twice(tmp_path, monkeypatch):
    """If the run is killed in between, it resumes before both."""
    written, publish = [], commit._publish

    def recording(*args, **kwargs):
        written.append(os.path.basename(args[1]))
        return publish(*args, **kwargs)

    monkeypatch.setattr(commit, "_publish", recording)
    net = fit(tmp_path, epochs=2)
    assert written == [
        *("best_val_loss_epoch_0.ckpt", "epoch_0_batch_3.ckpt"),
        *("best_val_loss_epoch_1.ckpt", "epoch_1_batch_3.ckpt"),
    ]
    assert net.trainer.checkpoint_callback.current_score == 0.5


def test_best_file_that_cannot_be_written_does_not_keep_the_newest_from_being_saved(tmp_path):
    class Blocked(Improving):
        def on_train_start(self):
            (tmp_path / "best").write_text("a file, and no directory")

    net = Blocked(dirpath=tmp_path, save_weights_only="best", best_filename="best/{epoch}")
    ending = trainer(tmp_path, max_steps=2, val_check_interval=2)
    with pytest.raises(SaveError, match="was not saved"):
        ending.fit(net, loader(4), loader(1))
    assert os.path.basename(latest(tmp_path)) == "epoch_0_batch_2.ckpt"


def test_best_file_is_no_file_to_resume_from_and_the_error_says_what_is(tmp_path):
    fit(tmp_path, epochs=1)
    with pytest.raises(ResumeError, match=r"holds weights only .*load_from_checkpoint.*checkpointable\.latest"):
        fit(tmp_path, epochs=2, ckpt_path=best(tmp_path))


def test_best_of_everything_is_one_file_without_the_argument(tmp_path):
    """The twin."""
    fit(tmp_path, epochs=1, save_weights_only=False)
    assert contents(tmp_path) == {"best_val_loss_epoch_0.ckpt": False}
