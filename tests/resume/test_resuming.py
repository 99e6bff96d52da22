"""A resumed run continues at its position, with its best values, in its directory."""

from __future__ import annotations

import math
import shutil
from datetime import timedelta

import lightning as L
import pytest
import torch
from nets import MixedNet, Net, PlainNet, Scripted, files, links, load, loader, trainer

from checkpointable import CheckpointableWarning, CheckpointFileError, ResumeError, latest
from checkpointable.catalog.info import read_info

MID_EPOCH = "ignore:You're resuming from a checkpoint that ended before the epoch ended"
pytestmark = pytest.mark.filterwarnings(MID_EPOCH)


class Recording(Net):
    """Records which batch of which epoch it trains, and when it validates."""

    def __init__(self, **options):
        super().__init__(**options)
        self.history = []

    def training_step(self, batch, batch_idx):
        self.history.append((self.current_epoch, batch_idx))
        return super().training_step(batch, batch_idx)

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        if not self.trainer.sanity_checking:
            self.history.append(("validation", self.trainer.fit_loop.total_batch_idx + 1))


TRAINERS = [
    {"max_epochs": 3},
    {"max_epochs": 3, "val_check_interval": 2},
    {"max_epochs": 3, "val_check_interval": 0.5},
    {"max_epochs": 3, "check_val_every_n_epoch": 2},
    {"max_epochs": 3, "val_check_interval": 3, "check_val_every_n_epoch": None},
    {"max_epochs": 3, "accumulate_grad_batches": 3},
    {"max_epochs": -1, "max_steps": 11},
    {"max_epochs": 4, "limit_train_batches": 4, "max_steps": 14},
]

EACH = [pytest.param(4, id="every fourth file"), pytest.param(1, id="every file", marks=pytest.mark.sweep)]


@pytest.mark.parametrize("each", EACH)
@pytest.mark.parametrize("options", TRAINERS, ids=str)
def test_resume_from_any_file_trains_and_validates_as_the_uninterrupted_run(tmp_path, options, each):
    everything = {"save_interval": 1, "save_last_k": -1, "save_top_k": -1, "every_n_epochs": 1}
    straight = Recording(dirpath=tmp_path / "a", **everything)
    trainer(tmp_path, num_sanity_val_steps=0, **options).fit(straight, loader(5), loader(1))
    names = files(tmp_path / "a")
    assert len(names) >= 6
    for name in names[::each]:
        resumed = Recording(dirpath=tmp_path / name, save_interval=1, save_top_k=0)
        own = trainer(tmp_path, num_sanity_val_steps=0, **options)
        own.fit(resumed, loader(5), loader(1), ckpt_path=tmp_path / "a" / name)
        assert resumed.history == after(straight.history, read_info(tmp_path / "a" / name).batches), f"from {name}"
        assert own.global_step == straight.trainer.global_step


def after(history, batches):
    """The part of a history after this many batches and the validation that the last of them triggers."""
    trained = [index for index, entry in enumerate(history) if entry[0] != "validation"]
    start = trained[batches] if batches < len(trained) else len(history)
    return history[start:]


def test_run_stopped_by_max_steps_inside_an_epoch_resumes_inside_it(tmp_path):
    short = Recording(dirpath=tmp_path, save_top_k=0)
    trainer(tmp_path, max_steps=3).fit(short, loader(5), loader(1))
    longer = Recording(save_top_k=0)
    own = trainer(tmp_path, max_steps=8, max_epochs=2)
    own.fit(longer, loader(5), loader(1), ckpt_path=short.last_model_path)
    trained = [entry for entry in longer.history if entry[0] != "validation"]
    assert trained == [(0, 3), (0, 4), (1, 0), (1, 1), (1, 2)]


def test_resume_restores_the_best_values_and_saves_in_the_same_directory(tmp_path):
    where = tmp_path / "run"
    first = Scripted([2.0, 1.0], dirpath=where)
    trainer(tmp_path, max_epochs=2).fit(first, loader(2), loader(1))
    second = Scripted([1.5, 0.5])
    trainer(tmp_path, max_epochs=4).fit(second, loader(2), loader(1), ckpt_path=where / "last.ckpt")
    assert second.best_val_loss <= first.best_val_loss
    assert files(where) == ["best_score_epoch_1.ckpt", "best_score_epoch_3.ckpt"], "the file resumed from stays"
    assert links(where) == {"best.ckpt": "best_score_epoch_3.ckpt", "last.ckpt": "best_score_epoch_3.ckpt"}
    assert read_info(second.last_model_path).run_id == read_info(where / "best_score_epoch_1.ckpt").run_id
    assert read_info(second.last_model_path).resumed_from == str(where / "best_score_epoch_1.ckpt")


def test_worse_value_after_a_resume_does_not_become_best(tmp_path):
    trainer(tmp_path).fit(Scripted([1.0], dirpath=tmp_path), loader(2), loader(1))
    second = Scripted([2.0])
    trainer(tmp_path, max_epochs=2).fit(second, loader(2), loader(1), ckpt_path=tmp_path / "last.ckpt")
    assert second.best_model_path == str(tmp_path / "best_score_epoch_0.ckpt")
    assert float(second.best_model_score) == 1.0


def test_resume_from_a_directory_that_was_moved_saves_there(tmp_path):
    trainer(tmp_path).fit(Scripted([1.0], dirpath=tmp_path / "a"), loader(2), loader(1))
    shutil.move(tmp_path / "a", tmp_path / "b")
    second = Scripted([2.0])
    trainer(tmp_path, max_epochs=2).fit(second, loader(2), loader(1), ckpt_path=tmp_path / "b" / "last.ckpt")
    assert second.best_model_path == str(tmp_path / "b" / "best_score_epoch_0.ckpt")
    assert not (tmp_path / "a").exists()


def test_file_resumed_from_is_never_deleted_and_later_files_follow_save_last_k(tmp_path):
    trainer(tmp_path).fit(Net(dirpath=tmp_path, save_interval=2, save_top_k=0, save_last=False), loader(5))
    assert files(tmp_path) == ["epoch_0_batch_4.ckpt"]
    start = tmp_path / "epoch_0_batch_4.ckpt"
    before = start.read_bytes()
    net = Net(save_interval=2, save_top_k=0)
    trainer(tmp_path, max_epochs=3).fit(net, loader(5), ckpt_path=start)
    assert files(tmp_path) == ["epoch_0_batch_4.ckpt", "epoch_2_batch_5.ckpt"]
    assert start.read_bytes() == before


def test_leftover_of_a_run_killed_between_commit_and_delete_is_deleted_after_the_next_save(tmp_path):
    net = Net(dirpath=tmp_path, save_interval=1, save_last_k=-1, save_top_k=0, save_last=False)
    trainer(tmp_path, limit_train_batches=3).fit(net, loader(5))
    second = Net(save_interval=1, save_top_k=0, save_last=False)
    trainer(tmp_path).fit(second, loader(5), ckpt_path=tmp_path / "epoch_0_batch_2.ckpt")
    kept = ["epoch_0_batch_2.ckpt", "epoch_0_batch_3.ckpt", "epoch_0_batch_5.ckpt"]
    assert files(tmp_path) == kept, "a file saved after the one resumed from belongs to another attempt, and stays"


def test_nothing_is_saved_twice_at_the_position_resumed_from(tmp_path):
    net = Net(dirpath=tmp_path, every_n_train_steps=1, save_last_k=-1, save_top_k=0)
    trainer(tmp_path, accumulate_grad_batches=4, max_steps=1).fit(net, loader(9))
    assert files(tmp_path) == ["epoch_0_batch_4.ckpt"]
    second = Net(every_n_train_steps=1, save_last_k=-1, save_top_k=0)
    trainer(tmp_path, accumulate_grad_batches=4, max_steps=2).fit(second, loader(9), ckpt_path=net.last_model_path)
    assert files(tmp_path) == ["epoch_0_batch_4.ckpt", "epoch_0_batch_8.ckpt"]


def test_finished_run_resumed_does_nothing(tmp_path):
    net = Net(dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(3), loader(1))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.ckpt")}
    second = Recording()
    trainer(tmp_path).fit(second, loader(3), loader(1), ckpt_path=tmp_path / "last.ckpt")
    assert second.history == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.ckpt")} == before


def test_time_since_the_last_save_is_carried_over(tmp_path):
    net = Net(dirpath=tmp_path, train_time_interval=timedelta(hours=1), save_top_k=0)
    trainer(tmp_path).fit(net, loader(2))
    path = net.last_model_path
    saved = load(path)
    assert 0 < saved["checkpointable"]["seconds"] < 60
    saved["checkpointable"]["seconds"] = 3600.0
    torch.save(saved, tmp_path / "long_ago.ckpt")
    second = Net(dirpath=tmp_path / "b", train_time_interval=timedelta(hours=1), save_top_k=0, save_last=False)
    trainer(tmp_path, max_epochs=2).fit(second, loader(2), ckpt_path=tmp_path / "long_ago.ckpt")
    assert files(tmp_path / "b") == ["epoch_1_batch_1.ckpt"]


def test_second_fit_of_a_trainer_continues_its_run(tmp_path):
    net = Scripted([1.0, 2.0], dirpath=tmp_path)
    own = trainer(tmp_path)
    own.fit(net, loader(2), loader(1))
    own.fit_loop.max_epochs = 2
    own.fit(net, loader(2), loader(1))
    assert net.best_model_path == str(tmp_path / "best_score_epoch_0.ckpt")
    assert len({read_info(path).run_id for path in tmp_path.glob("*.ckpt")}) == 1


def test_new_trainer_starts_a_new_run(tmp_path):
    net = Scripted([1.0, 2.0], dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(2), loader(1))
    trainer(tmp_path).fit(net, loader(2), loader(1))
    assert float(net.best_model_score) == 2.0
    assert files(tmp_path) == ["best_score_epoch_0-v1.ckpt", "best_score_epoch_0.ckpt"]


def test_load_from_checkpoint_restores_weights_and_best_val_loss(tmp_path):
    net = Net(dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(3), loader(1))
    loaded = Net.load_from_checkpoint(net.best_model_path)
    assert torch.equal(loaded.layer.weight, net.layer.weight)
    assert loaded.best_val_loss == net.best_val_loss < math.inf


def test_checkpoint_of_plain_lightning_loads_and_a_warning_lists_what_it_lacks(tmp_path):
    plain = trainer(tmp_path)
    plain.fit(PlainNet(), loader(3), loader(1))
    net = MixedNet(dirpath=tmp_path / "ours")
    with pytest.warns(CheckpointableWarning, match=r"not written by checkpointable.*Not in it: best_val_loss"):
        trainer(tmp_path, max_epochs=2).fit(
            net, loader(3), loader(1), ckpt_path=plain.checkpoint_callback.best_model_path
        )
    assert read_info(net.last_model_path).epoch == 1


def test_our_checkpoint_resumes_in_plain_lightning(tmp_path):
    net = MixedNet(dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(3), loader(1))
    own = trainer(tmp_path, max_epochs=2)
    own.fit(PlainNet(), loader(3), loader(1), ckpt_path=net.last_model_path)
    assert own.global_step == 6


def test_checkpoint_of_another_architecture_is_refused_with_what_to_do(tmp_path):
    net = Net(dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(2), loader(1))

    class Wider(Net):
        def __init__(self, **options):
            super().__init__(**options)
            self.layer = torch.nn.Linear(2, 3)

    with pytest.raises(ResumeError, match=r"cannot load these weights into Wider.*(?s:.)*Build the module with"):
        trainer(tmp_path).fit(Wider(), loader(2), loader(1), ckpt_path=net.last_model_path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-300]), "not an intact zip archive"),
        (lambda path: path.write_text("hello"), "not an intact zip archive"),
        (lambda path: path.write_bytes(b""), "an empty file"),
    ],
    ids=["truncated", "text", "empty"],
)
def test_damaged_file_is_refused_with_what_to_resume_from(tmp_path, damage, says):
    net = Net(dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(2), loader(1))
    path = type(tmp_path)(net.last_model_path)
    damage(path)
    with pytest.raises(CheckpointFileError, match=rf"{says}(?s:.)*Resume from another file: checkpointable\.latest"):
        trainer(tmp_path).fit(Net(), loader(2), loader(1), ckpt_path=path)


def test_counters_that_disagree_are_refused(tmp_path):
    net = Net(dirpath=tmp_path, save_interval=2, save_top_k=0, save_last=False)
    trainer(tmp_path).fit(net, loader(5))
    saved = load(net.last_model_path)
    saved["checkpointable"]["position"]["batch"] = 3
    torch.save(saved, tmp_path / "torn.ckpt")
    with pytest.raises(ResumeError, match="do not belong together; resume from another checkpoint"):
        trainer(tmp_path).fit(Net(), loader(5), ckpt_path=tmp_path / "torn.ckpt")


def test_state_of_a_later_version_is_refused(tmp_path):
    net = Net(dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(2))
    saved = load(net.last_model_path)
    saved["checkpointable"]["format"] = 99
    torch.save(saved, tmp_path / "later.ckpt")
    with pytest.raises(ResumeError, match="Upgrade: pip install --upgrade checkpointable"):
        trainer(tmp_path).fit(Net(), loader(2), ckpt_path=tmp_path / "later.ckpt")


def test_weights_only_file_is_refused_with_what_to_do(tmp_path):
    net = Net(dirpath=tmp_path, save_weights_only=True)
    trainer(tmp_path).fit(net, loader(2), loader(1))
    with pytest.raises(ResumeError, match=r"holds weights only.*Start a new run with Net\.load_from_checkpoint"):
        trainer(tmp_path).fit(Net(), loader(2), loader(1), ckpt_path=net.last_model_path)


def test_latest_file_after_a_resume_from_an_older_one_is_of_the_later_attempt(tmp_path):
    first = Net(dirpath=tmp_path, every_n_epochs=1, save_last_k=-1, save_top_k=0)
    trainer(tmp_path, max_epochs=4).fit(first, loader(2))
    again = Net(every_n_epochs=1, save_last_k=-1, save_top_k=0)
    trainer(tmp_path, max_epochs=3).fit(again, loader(2), ckpt_path=tmp_path / "epoch_0_batch_2.ckpt")
    assert latest(tmp_path) == again.last_model_path
    assert read_info(again.last_model_path).epoch == 2
    assert "epoch_3_batch_2.ckpt" in files(tmp_path)


def test_training_that_stops_before_its_first_batch_leaves_a_file_that_can_be_resumed(tmp_path):
    class Stopping(L.Callback):
        def on_train_start(self, trainer, pl_module):
            trainer.should_stop = True

    first = trainer(tmp_path / "a")
    first.fit(Net(dirpath=tmp_path / "a"), loader(4), loader(1))
    first.save_checkpoint(tmp_path / "b" / "manual.ckpt")
    stopped = Net()
    trainer(tmp_path, max_epochs=3, callbacks=[Stopping()]).fit(
        stopped, loader(4), loader(1), ckpt_path=tmp_path / "b" / "manual.ckpt"
    )
    again = Net()
    trainer(tmp_path, max_epochs=3).fit(again, loader(4), loader(1), ckpt_path=stopped.last_model_path)
    assert again.trainer.current_epoch == 3
