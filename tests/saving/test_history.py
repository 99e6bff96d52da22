"""The newest file of a run tells all of it: what was measured, what was saved, and the sessions that trained it."""

from __future__ import annotations

import copy
import itertools
import math
import os
import pickle
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import forked
import lightning as L
import pytest
import torch
from cli import made
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from nets import MixedNet, Net, loader, trainer
from saving.parted import fit as fit_parted
from saving.parted import group_of_one  # noqa: F401  # a fixture

from checkpointable import CheckpointableWarning, latest, to_single_file
from checkpointable.catalog.history import read_history, with_ends
from checkpointable.catalog.info import read_info
from checkpointable.catalog.traces import Label, ends_in, of_run
from checkpointable.policy.bounded_history import MOST_BYTES
from checkpointable.policy.history import History, SavedPoint
from checkpointable.policy.names import HISTORY_KEY, KEY
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.resume.restorer import Restorer
from checkpointable.saving import history
from checkpointable.saving.history import RunHistory
from checkpointable.saving.progress import Progress
from checkpointable.storage.format import checkpoint
from checkpointable.storage.ring_file import RingFile
from checkpointable.storage.staging.snapshot import Snapshot

HERE = Path(__file__).parent


def fit(root, net, *, epochs=2, val=2, **options):
    ckpt_path = options.pop("ckpt_path", None)
    own = trainer(root, max_epochs=epochs, **options)
    own.fit(net, loader(4), loader(val), ckpt_path=ckpt_path)
    return own


def newest(directory) -> History:
    return read_history(latest(directory))


def points(found, ended="validation"):
    return [point.position.batches for point in found.points if point.ended == ended]


def killed(where, last):
    script = HERE / "killed_history.py"
    process = forked.start(script, where, last, "--api-key", "SECRET", output=where / "output")
    process.join()
    assert process.exitcode == (0 if last < 0 else -signal.SIGKILL), forked.errors_of(where / "output").read_text()
    return latest(where)


def test_newest_file_of_a_run_that_was_killed_twice_tells_all_of_it(tmp_path):
    first, second, last = killed(tmp_path, 10), killed(tmp_path, 13), killed(tmp_path, -1)
    found = read_history(last)
    assert points(found) == list(range(3, 31, 3))
    assert points(found, "epoch") == list(range(3, 31, 3))
    assert [it.resumed_from for it in found.sessions] == [None, first, second]
    assert [it.ended for it in found.sessions] == [None, None, "finished"]
    assert [it.generation for it in found.sessions] == [0, 1, 2]
    assert len({it.attempt for it in found.sessions}) == 3
    assert found.sessions[-1].attempt == read_info(last).lineage.attempt
    assert [it.begins.batches for it in found.sessions] == [0, 9, 21]
    assert [it.ends.batches for it in found.sessions] == [9, 21, 30]
    assert [it.exactness for it in found.sessions] == [None, "exact", "exact"]
    assert [it.confirmed_batches for it in found.sessions] == [None, 1, 1]
    assert {it.first_difference for it in found.sessions} == {None}
    for it in found.sessions:
        assert it.command[0].endswith("killed_history.py")
        assert it.command[-2:] == ("--api-key", "***")
        assert it.host == socket.gethostname()
        assert it.started <= it.last_seen
    saved = [it.position.batches for it in found.saves]
    assert saved == sorted(saved)
    assert {2, 3, 5, 24, 26, 27, 29} <= set(saved)
    best = next(it for it in found.saves if it.kind == "best")
    assert best.score == found.points[0].metrics["val_loss"]
    assert min(best.blocked_seconds, best.write_seconds) > 0
    assert best.size_bytes > 10_000


class Failing(Net):
    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == 5:
            raise RuntimeError("diverged\nand more")
        return super().training_step(batch, batch_idx)


def test_exception_inside_a_batch_is_what_ended_a_session(tmp_path):
    with pytest.raises(RuntimeError, match="diverged"):
        fit(tmp_path, Failing(save_interval=3, dirpath=tmp_path))
    assert newest(tmp_path).sessions[0].ended is None, "its files were saved before"
    fit(tmp_path, Net(save_interval=3, dirpath=tmp_path), ckpt_path=latest(tmp_path))
    assert [it.ended for it in newest(tmp_path).sessions] == ["RuntimeError: diverged", "finished"]


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_exception_without_a_text_ends_the_fit_by_itself(tmp_path):
    class Raising(Net):
        def training_step(self, batch, batch_idx):
            if self.trainer.global_step == 5:
                raise Odd
            return super().training_step(batch, batch_idx)

    with pytest.raises(Odd):
        fit(tmp_path, Raising(save_interval=3, dirpath=tmp_path))
    fit(tmp_path, Net(save_interval=3, dirpath=tmp_path), ckpt_path=latest(tmp_path))
    assert [it.ended for it in newest(tmp_path).sessions] == ["Odd", "finished"]


def test_end_is_of_its_session_and_of_the_rank_that_failed_first(tmp_path):
    def written(attempt, rank, **told):
        label = Label(run_id="run1", trajectory="a", ranks=2, **told)
        RingFile(str(tmp_path / f".checkpointable-{attempt}-{rank}.trace"), label.encoded(), records=8).close()

    written("a", 0, ended="ValueError: the cause", ended_at=1.0, session=7.0)
    written("a", 1, ended="RuntimeError: closed by peer", ended_at=2.0)
    written("b", 0, ended="RuntimeError: closed by peer", ended_at=4.0, session=9.0)
    written("b", 1, ended="ValueError: the cause", ended_at=3.0)
    ends = ends_in(of_run("run1", [str(tmp_path)]))
    assert {name: end.text for name, end in ends.items()} == dict.fromkeys("ab", "ValueError: the cause")
    first, second = made.session(0, made.at(0), made.at(1)), made.session(1, made.at(1), made.at(2))
    fits = [replace(first, attempt="a", started=5.0), replace(second, attempt="a", started=7.0)]
    of_one = made.history([1.0], fits)
    assert [it.ended for it in with_ends(of_one, ends).sessions] == [None, "ValueError: the cause"]
    assert [it.ended for it in with_ends(replace(of_one, sessions=(fits[0],)), ends).sessions] == [None]


def test_exception_is_what_ended_the_fit_before_a_further_one_of_the_process(tmp_path):
    net = Failing(save_interval=3, dirpath=tmp_path)
    own = trainer(tmp_path, max_epochs=2)
    with pytest.raises(RuntimeError, match="diverged"):
        own.fit(net, loader(4), loader(2))
    Failing.training_step, kept = Net.training_step, Failing.training_step
    try:
        own.fit(net, loader(4), loader(2))
    finally:
        Failing.training_step = kept
    ended = [it.ended for it in newest(tmp_path).sessions]
    assert ended == ["RuntimeError: diverged", "finished"]


def test_run_that_resumes_from_an_older_file_has_no_history_beyond_it(tmp_path):
    fit(tmp_path, Net(save_interval=3, save_last_k=-1, save_top_k=-1, dirpath=tmp_path), epochs=3)
    fit(tmp_path, Net(dirpath=tmp_path), epochs=2, ckpt_path=tmp_path / "epoch_1_batch_3.ckpt")
    found = newest(tmp_path)
    assert points(found) == [4, 8]
    assert [it.ends.batches for it in found.sessions] == [7, 8]
    assert found.sessions[0].ended is None
    assert all(it.position.batches < 8 for it in found.saves)


def test_file_has_no_point_later_than_itself_and_no_cost_of_its_own(tmp_path):
    fit(tmp_path, Net(save_interval=3, save_last_k=-1, dirpath=tmp_path))
    found = read_history(tmp_path / "epoch_1_batch_3.ckpt")
    assert points(found) == points(found, "epoch") == [4]
    assert [it.name for it in found.saves] == ["epoch_0_batch_3.ckpt", "best_val_loss_epoch_0.ckpt"]
    created = [read_info(tmp_path / it.name).created for it in found.saves[:1]]
    assert [it.created for it in found.saves[:1]] == created


def test_values_that_have_no_room_at_a_position_are_counted(tmp_path):
    class Many(Net):
        def validation_step(self, batch, batch_idx):
            self.log_dict({f"metric_{number:03}": 0.5 for number in range(100)})
            return super().validation_step(batch, batch_idx)

    fit(tmp_path, Many(dirpath=tmp_path))
    found = newest(tmp_path)
    measured = {"val_loss", *(f"metric_{number:03}" for number in range(100))}
    kept = {name for point in found.points if point.ended == "validation" for name in point.metrics}
    assert "val_loss" in kept < measured
    assert found.metrics_left_out == len(measured) - len(kept) > 0


def test_points_have_what_was_measured_there_and_nothing_else(tmp_path):
    class Logging(MixedNet):
        def training_step(self, batch, batch_idx):
            self.log("mean_step", float(self.global_step), on_step=False, on_epoch=True)
            self.log("broken", math.nan, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    fit(tmp_path, Logging(dirpath=tmp_path), check_val_every_n_epoch=2, epochs=3)
    found = newest(tmp_path)
    assert points(found) == [8]
    assert [set(it.metrics) for it in found.points] == [
        {"mean_step", "broken"},
        {"val_loss"},
        {"mean_step", "broken"},
        {"mean_step", "broken"},
    ]
    assert [it.metrics["mean_step"] for it in found.points if it.ended == "epoch"] == [1.5, 5.5, 9.5]
    assert math.isnan(found.points[0].metrics["broken"])


class Stopping(MixedNet):
    """Does something at its third batch."""

    def __init__(self, action, **options):
        super().__init__(**options)
        self.action = action

    def training_step(self, batch, batch_idx):
        if self.global_step == 2:
            self.action(self)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("sent", "ended"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")], ids=["sigterm", "ctrl_c"]
)
def test_session_that_a_signal_has_ended_says_so(tmp_path, sent, ended):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    net = Stopping(lambda net: os.kill(os.getpid(), sent), dirpath=tmp_path)
    with pytest.raises(SystemExit):
        fit(tmp_path, net)
    (session,) = newest(tmp_path).sessions
    assert (session.ended, session.ends.batches) == (ended, 3)


def test_session_that_an_exception_has_ended_says_so(tmp_path):
    class Failing:
        def __len__(self):
            return 5

        def __iter__(self):
            yield from loader(3)
            raise ValueError("cannot read https://host/?token=SECRET\nand so on")

    with pytest.raises(ValueError, match="cannot read"):
        trainer(tmp_path).fit(Net(dirpath=tmp_path, save_interval=None), Failing())
    (session,) = newest(tmp_path).sessions
    assert session.ended == "ValueError: cannot read https://host/?token=***"


@pytest.mark.parametrize(
    ("net", "options"),
    [
        (Net, {}),
        (Net, {"max_steps": 6}),
        (Net, {"limit_train_batches": 2}),
        (Net, {"callbacks": [EarlyStopping("val_loss", stopping_threshold=1e9)]}),
        (lambda **options: Stopping(lambda net: setattr(net.trainer, "should_stop", True), **options), {}),
    ],
    ids=["epochs", "steps", "few_batches", "early_stopping", "should_stop"],
)
def test_last_file_of_a_training_says_that_it_has_finished(tmp_path, net, options):
    fit(tmp_path, net(save_interval=1, dirpath=tmp_path), **options)
    (session,) = newest(tmp_path).sessions
    assert session.ended == "finished"


def test_file_of_a_training_that_goes_on_says_nothing_of_an_end(tmp_path):
    fit(tmp_path, Net(save_interval=1, save_last_k=-1, save_top_k=-1, every_n_epochs=1, dirpath=tmp_path), epochs=3)
    ended = {info: read_history(path).sessions[-1].ended for path in tmp_path.glob("epoch*") if (info := path.name)}
    assert len(ended) > 6
    assert {name for name, end in ended.items() if end is not None} <= {"epoch_2_batch_4.ckpt"}


def test_further_fit_of_the_same_trainer_is_a_session_more(tmp_path):
    net = Net(dirpath=tmp_path)
    own = fit(tmp_path, net)
    own.fit_loop.max_epochs = 3
    own.fit(net, loader(4), loader(2))
    found = newest(tmp_path)
    assert [(it.begins.batches, it.ends.batches, it.ended) for it in found.sessions] == [
        (0, 8, "finished"),
        (8, 12, "finished"),
    ]
    assert points(found) == [4, 8, 12]


def test_new_run_of_the_same_module_has_a_history_of_its_own(tmp_path):
    net = Net(dirpath=tmp_path / "a")
    fit(tmp_path, net)
    fit(tmp_path, net, epochs=1)
    assert points(read_history(net.last_model_path)) == [4]


def test_what_the_script_trains_otherwise_is_noted(tmp_path):
    class Rated(MixedNet):
        rate = 0.1

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.rate)

    fit(tmp_path, Rated(dirpath=tmp_path), epochs=1)
    first = latest(tmp_path)
    for number, from_script in enumerate([(), "learning_rate"], start=2):
        net = Rated(dirpath=tmp_path, from_script=from_script)
        net.rate = 0.3
        fit(tmp_path, net, epochs=number, ckpt_path=first)
        session = newest(tmp_path).sessions[-1]
        (change,) = session.changes
        assert "learning rate" in change
        assert "0.3" in change
        assert session.exactness.startswith("exact but for" if from_script else "exact (")
    assert newest(tmp_path).sessions[0].changes == ()


def test_every_way_to_save_takes_the_history_along(tmp_path):
    class Saving(Net):
        def on_train_epoch_start(self):
            self.trainer.save_checkpoint(tmp_path / f"in_{self.current_epoch}.ckpt")

    theirs = ModelCheckpoint(tmp_path / "theirs", every_n_epochs=1, save_top_k=-1, filename="{epoch}")
    net = Saving(dirpath=tmp_path / "ours", save_weights_only="best", async_save=False)
    own = fit(tmp_path, net, callbacks=[theirs])
    own.save_checkpoint(tmp_path / "after.ckpt")
    own.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    for name in ("in_1.ckpt", "theirs/epoch=0.ckpt"):
        assert points(read_history(tmp_path / name)) == [4]
    for name in ("after.ckpt", "weights.ckpt", "theirs/epoch=1.ckpt"):
        assert points(read_history(tmp_path / name)) == [4, 8]
    for path in (*(tmp_path / "ours").glob("*.ckpt"), tmp_path / "after.ckpt"):
        assert read_history(path) is not None
        assert HISTORY_KEY not in torch.load(path, weights_only=True)[KEY]
    assert read_history(tmp_path / "after.ckpt").sessions[-1].ended == "finished"


def test_remote_file_draws_the_run_too(tmp_path):
    place = f"memory://history{os.getpid()}"
    fit(tmp_path, Net(dirpath=place))
    fit(tmp_path, Net(dirpath=place), epochs=3, ckpt_path=latest(place))
    found = newest(place)
    assert points(found) == [4, 8, 12]
    assert [it.resumed_from for it in found.sessions] == [None, f"{place}/best_val_loss_epoch_1.ckpt"]
    assert found.saves[0].size_bytes > 10_000


def test_copy_in_the_durable_directory_has_the_history(tmp_path):
    net = Net(fast_dirpath=tmp_path / "fast", dirpath=tmp_path / "durable")
    fit(tmp_path, net)
    assert points(newest(tmp_path / "durable")) == [4, 8]
    fit(tmp_path, Net(dirpath=tmp_path / "durable"), epochs=3, ckpt_path=latest(tmp_path / "durable"))
    assert points(newest(tmp_path / "durable")) == [4, 8, 12]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("group_of_one")
def test_shards_have_the_history_and_so_has_the_file_that_is_made_of_them(tmp_path):
    fit_parted(tmp_path, options={"save_last_k": 1})
    found = newest(tmp_path)
    (session,) = found.sessions
    assert session.ended == "finished"
    assert points(found, "epoch") == [5, 10]
    assert len(found.saves) > 3
    assert read_history(to_single_file(latest(tmp_path))) == found
    fit_parted(tmp_path, ckpt_path=latest(tmp_path), options={"save_last_k": 1}, max_epochs=3)
    assert points(newest(tmp_path), "epoch") == [5, 10, 15]
    assert len(newest(tmp_path).sessions) == 2


def test_two_ranks_write_one_history(tmp_path):
    for epochs in (2, 3):
        ended, said = forked.run_ranks(HERE / "two_ranks.py", tmp_path, epochs, "2", where=tmp_path)
        assert ended == [0, 0], said[-3000:]
    found = newest(tmp_path)
    assert points(found) == points(found, "epoch") == [4, 8, 12]
    assert [it.ended for it in found.sessions] == ["finished"] * 2
    assert found.sessions[1].exactness == "exact"


def forged(tmp_path, text):
    """A checkpoint with another text in place of its history."""
    fit(tmp_path, Net(dirpath=tmp_path))
    path = latest(tmp_path)
    loaded = torch.load(path, weights_only=True)
    loaded[KEY][HISTORY_KEY] = text
    content = b"".join(Snapshot.of(loaded).pieces())
    Path(path).write_bytes(content)
    return path


def test_run_resumes_from_a_file_without_history_and_begins_one(tmp_path):
    path = forged(tmp_path, None)
    assert read_history(path) is None
    fit(tmp_path, Net(dirpath=tmp_path), epochs=3, ckpt_path=path)
    found = newest(tmp_path)
    assert points(found) == [12]
    assert [it.begins.batches for it in found.sessions] == [8]


def test_run_resumes_from_a_file_whose_history_cannot_be_read_with_a_warning(tmp_path):
    path = forged(tmp_path, '{"monitor": 3, "mode": "min"}')
    with pytest.warns(CheckpointableWarning, match=r"history of the run cannot be read.*begins here.*monitor"):
        fit(tmp_path, Net(dirpath=tmp_path), epochs=3, ckpt_path=path)
    assert points(newest(tmp_path)) == [12]


def test_module_in_training_can_be_copied_and_pickled(tmp_path):
    class Copying(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            copies.append(copy.deepcopy(self._checkpointing.history))
            copies.append(pickle.loads(pickle.dumps(self._checkpointing.history)))

    copies = []
    fit(tmp_path, Copying(dirpath=tmp_path))
    assert all(isinstance(it, RunHistory) for it in copies)


def run_of(epochs, trainer):
    """The text in the last file of a run of so many epochs, which was saved after every tenth."""
    grown = RunHistory()
    grown.open(trainer, Options(), Progress(), None, dict)
    text = None
    for epoch in range(epochs):
        at = Position(epoch, 100, 100 * (epoch + 1), 100 * (epoch + 1))
        values = {"val_loss": torch.tensor(1.0 + abs(epoch - 3333)), "train_loss": torch.tensor(0.5)}
        grown.note_point(at, ["val_loss"], values, "validation")
        grown.note_point(at, ["train_loss"], values, "epoch")
        if epoch % 10 == 9:
            text = grown.text(trainer, at, Restorer(), None, interrupted=False)
            saved = {"kind": "epoch", "name": f"epoch_{epoch}.ckpt", "score": None, "created": 1e9, "size_bytes": 12345}
            grown.note_saved(SavedPoint(position=at, blocked_seconds=1 / 3, write_seconds=1 / 7, **saved))
    return text


def written(tmp_path, text):
    ours = {"metadata": {"kind": "interval"}, HISTORY_KEY: text}
    (tmp_path / "a.ckpt").write_bytes(b"".join(Snapshot.of({KEY: ours}).pieces()))
    assert checkpoint.history_text(tmp_path / "a.ckpt") == text
    return read_history(tmp_path / "a.ckpt")


def test_history_of_ten_thousand_epochs_takes_at_most_64_kb_and_shows_all_of_the_run(tmp_path):
    text = run_of(10_000, trainer(tmp_path))
    assert len(text.encode()) <= MOST_BYTES == 65536
    assert len(text.encode()) > MOST_BYTES / 2
    found = written(tmp_path, text)
    for ended in ("validation", "epoch"):
        at = points(found, ended)
        assert (at[0], at[-1]) == (100, 1_000_000)
        assert max(later - earlier for earlier, later in itertools.pairwise(at)) < 1_000_000 / 10
    assert 333_400 in points(found), "the best"
    assert len(found.sessions) == 1


def test_history_that_is_not_thinned_takes_more(tmp_path, monkeypatch):
    """The twin of the bound."""
    monkeypatch.setattr(history, "bounded", lambda whole, size_of, most: whole)
    assert len(run_of(1000, trainer(tmp_path))) > MOST_BYTES


def test_command_of_the_session_is_that_of_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--hf_token=SECRET", "--lr", "0.1"])
    fit(tmp_path, Net(dirpath=tmp_path))
    (session,) = newest(tmp_path).sessions
    assert session.command == ("train.py", "--hf_token=***", "--lr", "0.1")
    assert b"SECRET" not in Path(latest(tmp_path)).read_bytes()


def test_dry_run_has_no_history(tmp_path):
    net = Net(dirpath=tmp_path)
    own = L.Trainer(fast_dev_run=2, logger=False, enable_progress_bar=False, accelerator="cpu", devices=1)
    own.fit(net, loader(4), loader(2))
    own.save_checkpoint(tmp_path / "a.ckpt")
    assert read_history(tmp_path / "a.ckpt") is None
