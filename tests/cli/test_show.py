"""``show``: one run on one screen."""

from __future__ import annotations

import secrets
import shlex
import shutil
import socket
from dataclasses import replace

import pytest
from catalog.conftest import DAMAGE
from cli import made
from nets import Net, loader, trainer

from checkpointable import latest
from checkpointable.catalog.traces import Label
from checkpointable.policy.position import Position
from checkpointable.storage.ring_file import RingFile


def test_killed_run_is_shown_with_its_curve_sessions_files_and_the_next_line(command, tmp_path):
    made.killed_run(tmp_path / "a")
    done = command("show", "a")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "run run1: no end noted"
    assert lines[1].startswith("epoch 6, batch 0, step 60; 2 checkpoints, 89.3 kB; saved ")
    assert "val_loss: 6 values, lowest 0.9 at epoch 5, batch 0, step 50" in lines
    curve = next(line for line in lines if "█" in line)
    assert curve.startswith("2 ")
    assert curve.endswith(" 0.95")
    assert [bar for bar in dict.fromkeys(curve) if bar in "▁▂▃▄▅▆▇█"] == list("█▅▂▃▁")
    assert any(line.strip().startswith("1───") and line.count("✗") == 1 and "2──" in line for line in lines)
    assert sum("killed" in line for line in lines) == 2
    assert any("2/0 to 4/0" in line and line.endswith("killed; resume confirmed") for line in lines)
    assert any("session 3 changed learning_rate: 0.1 -> 0.01" in line for line in lines)
    assert any(line.startswith("  best  intact") and "best_val_loss_epoch_4.ckpt" in line for line in lines)
    assert any(line.startswith("  last  intact") and "epoch_6_batch_0.ckpt" in line for line in lines)
    assert "a resume from the last one is: exact" in lines
    assert "next: python train.py --width 8" in lines


def test_real_run_of_which_few_files_are_left_is_shown_whole(command, tmp_path):
    def fit(epochs: int) -> None:
        net = Net(dirpath=tmp_path / "a", save_interval=4)
        trainer(tmp_path, max_epochs=epochs).fit(net, loader(), loader(seed=1), ckpt_path=latest(tmp_path / "a"))

    fit(2)
    fit(5)
    run = command("show", "a", "--json").json["run"]
    assert [point["batches"] for point in run["curve"]] == [10, 20, 30, 40, 50]
    assert [(it["number"], it["ends"]["batches"], it["ended"]) for it in run["sessions"]] == [
        *((1, 20, "finished"), (2, 50, "finished"))
    ]
    assert run["checkpoints"] < 5
    assert run["best_value"] == run["best"]["score"]
    assert command("show", "a").out.splitlines()[0] == f"run {run['run_id']}: finished"


def test_answer_has_the_whole_curve_and_the_sessions(command, tmp_path):
    made.killed_run(tmp_path / "a")
    run = command("show", "a", "--json").json["run"]
    assert [point["value"] for point in run["curve"]] == [2.0, 1.5, 1.1, 1.2, 0.9, 0.95]
    assert [point["batches"] for point in run["curve"]] == [10, 20, 30, 40, 50, 60]
    assert [it["ended"] for it in run["sessions"]] == ["killed", "killed", "no end noted"]
    assert run["sessions"][1]["confirmed_batches"] == 5
    assert run["sessions"][2]["command"] == "train.py --width 8"
    assert run["best_value"] == 0.9
    assert (run["best"]["score"], run["best"]["is_verified"]) == (0.9, True)
    assert run["last"]["epoch"] == 6
    assert run["damaged"] == []


def test_run_without_a_history_is_shown_from_the_files_metadata(command, tmp_path):
    for epoch, score in ((1, 3.0), (3, 1.0), (4, float("nan"))):
        made.write(tmp_path / f"a/best_{epoch}.ckpt", score=score, at=made.at(epoch), run_id="old", kind="best")
    lineage = {"attempt": "b", "generation": 1, "ancestors": [{"attempt": "", "batches": 30}]}
    made.write(tmp_path / "a/last.2.ckpt", at=made.at(5), run_id="old", kind="last", reasons=["last"], lineage=lineage)
    done = command("show", "a", "--json")
    run = done.json["run"]
    assert [point["value"] for point in run["curve"]] == [3.0, 1.0, "nan"]
    assert [(it["ended"], it["ends"]["epoch"]) for it in run["sessions"]] == [("killed", 4), ("finished", 5)]
    assert run["sessions"][1]["begins"]["epoch"] == 3
    assert run["state"] == "finished"
    assert run["best"]["path"].endswith("best_3.ckpt")
    assert done.json["next"].startswith("checkpointable export a -o best.")
    text = command("show", "a").out
    assert "?" in next(line for line in text.splitlines() if "█" in line)


def test_run_without_any_score_says_that_nothing_was_compared(command, tmp_path):
    made.write(tmp_path / "a/1.ckpt", at=made.at(1))
    done = command("show", "a")
    assert done.code == 0
    assert "no value was compared (monitor)" in done.out
    assert "next: trainer.fit(model, ckpt_path=checkpointable.latest('a'))" in done.out


def test_damaged_last_file_is_named_with_the_one_before_it_and_is_1(command, tmp_path):
    best, newest = made.killed_run(tmp_path / "a")
    DAMAGE["bit"][0](newest)
    done = command("show", "a")
    assert done.code == 1
    assert "next: checkpointable verify a" in done.out
    assert any(line.split() == ["damaged", "epoch_6_batch_0.ckpt"] for line in done.out.splitlines())
    assert "the checksum of its member" in done.out
    run = command("show", "a", "--json").json["run"]
    assert run["last"]["path"].endswith("best_val_loss_epoch_4.ckpt")
    assert [it["path"].endswith("epoch_6_batch_0.ckpt") for it in run["damaged"]] == [True]
    assert best.endswith("best_val_loss_epoch_4.ckpt")


def test_damaged_file_that_is_neither_best_nor_last_is_found_when_all_are_read(command, tmp_path):
    made.killed_run(tmp_path / "a")
    DAMAGE["bit"][0](made.write(tmp_path / "a/epoch_1.ckpt", at=made.at(1), run_id="run1"))
    assert command("show", "a").code == 0
    assert command("show", "a", "--verify").code == 1


def test_truncated_file_is_damaged_without_being_read(command, tmp_path):
    made.killed_run(tmp_path / "a")
    DAMAGE["truncated"][0](made.write(tmp_path / "a/epoch_1.ckpt", at=made.at(1), run_id="run1"))
    done = command("show", "a")
    assert done.code == 1
    assert "not an intact zip archive" in done.out


def test_remote_run_is_shown_and_not_read_unless_asked(command, tmp_path, at_url):
    made.killed_run(tmp_path / "a")
    url = at_url(tmp_path / "a")
    done = command("show", url)
    assert done.code == 0
    assert "  last  not read" in done.out
    assert "val_loss: 6 values" in done.out
    assert "  last  intact" in command("show", url, "--verify").out


def test_run_that_trains_now_is_running_and_is_to_be_watched(command, tmp_path):
    made.killed_run(tmp_path / "a")
    trace = tmp_path / "a" / ".checkpointable-attempt2-0.trace"
    ring = RingFile(str(trace), Label(run_id="run1", trajectory="attempt0", ranks=1).encoded())
    assert command("show", "a", "--json").json["run"]["state"] == "running"
    assert "next: checkpointable watch a" in command("show", "a").out
    ring.close()
    assert command("show", "a", "--json").json["run"]["state"] == "no end noted"  # it was on a machine named "here"


def test_run_whose_process_is_gone_from_this_machine_was_killed(command, tmp_path):
    here = made.session(0, made.at(0), made.at(1), host=socket.gethostname())
    made.write(tmp_path / "a/1.ckpt", of_run=made.history([1.0], [here]), at=made.at(1), run_id="run1")
    assert command("show", "a", "--json").json["run"]["state"] == "no end noted"
    trace = tmp_path / "a" / ".checkpointable-attempt0-0.trace"
    RingFile(str(trace), Label(run_id="run1", trajectory="attempt0", ranks=1).encoded()).close()
    assert command("show", "a", "--json").json["run"]["state"] == "killed"


def test_history_that_lacks_values_says_so(command, tmp_path):
    whole = made.history([3.0, 2.0, 1.0], [made.session(0, made.at(0), made.at(3))])
    made.write(tmp_path / "a/1.ckpt", of_run=whole, at=made.at(3), run_id="run1")
    assert "val_loss: 3 values, lowest" in command("show", "a").out
    thinned = replace(whole, points_left_out=1, metrics_left_out=2)
    made.write(tmp_path / "a/1.ckpt", of_run=thinned, at=made.at(3), run_id="run1")
    shown = command("show", "a").out
    assert "val_loss: 3 values of more, lowest" in shown
    assert "2 metrics had no room in the history" in shown


def test_exception_that_wrote_no_file_is_told_by_the_trace(command, tmp_path):
    here = made.session(0, made.at(0), made.at(1), host=socket.gethostname())
    made.write(tmp_path / "a/1.ckpt", of_run=made.history([1.0], [here]), at=made.at(1), run_id="run1")
    trace = tmp_path / "a" / ".checkpointable-attempt0-0.trace"
    label = Label(run_id="run1", trajectory="attempt0", ranks=1, ended="RuntimeError: diverged")
    RingFile(str(trace), label.encoded()).close()
    assert command("show", "a", "--json").json["run"]["state"] == "RuntimeError: diverged"


def test_run_that_has_resumed_and_not_saved_yet_is_running(command, tmp_path):
    stopped = made.session(0, made.at(0), made.at(1), ended="SIGTERM")
    made.write(tmp_path / "a/1.ckpt", of_run=made.history([1.0], [stopped]), at=made.at(1), run_id="run1")
    trace = tmp_path / "a" / ".checkpointable-attempt1-0.trace"
    ring = RingFile(str(trace), Label(run_id="run1", trajectory="attempt0", ranks=1).encoded())
    run = command("show", "a", "--json").json["run"]
    assert (run["state"], run["sessions"][-1]["ended"]) == ("running", "SIGTERM")
    ring.close()


def test_trace_of_another_run_says_nothing_of_this_one(command, tmp_path):
    made.killed_run(tmp_path / "a")
    trace = tmp_path / "a" / ".checkpointable-attempt9-0.trace"
    ring = RingFile(str(trace), Label(run_id="run9", trajectory="attempt9", ranks=1).encoded())
    assert command("show", "a", "--json").json["run"]["state"] == "no end noted"
    ring.close()


def test_newest_of_several_runs_is_shown_and_another_when_it_is_named(command, tmp_path):
    made.killed_run(tmp_path / "a")
    made.write(tmp_path / "b/1.ckpt", at=made.at(1), run_id="other", created=1_600_000_000.0)
    done = command("show", ".", "--json")
    assert (done.json["run"]["run_id"], done.json["other_runs"]) == ("run1", ["other"])
    assert "1 other run here" in command("show", ".").out
    assert command("show", ".", "--run-id", "oth", "--json").json["run"]["run_id"] == "other"
    missing = command("show", ".", "--run-id", "none")
    assert missing.code == 1
    assert "no run none in .. There are" in missing.out


@pytest.mark.parametrize(("ended", "state"), [("finished", "finished"), ("SIGTERM", "SIGTERM")])
def test_end_that_a_session_noted_is_shown(ended, state, command, tmp_path):
    sessions = [made.session(0, made.at(0), made.at(2), ended=ended)]
    made.write(tmp_path / "a/1.ckpt", of_run=made.history([1.0, 2.0], sessions), at=made.at(2))
    assert command("show", "a", "--json").json["run"]["state"] == state


def test_command_that_has_never_resumed_is_not_the_next_line(command, tmp_path):
    sessions = [made.session(0, made.at(0), made.at(2))]
    made.write(tmp_path / "a/1.ckpt", of_run=made.history([1.0, 2.0], sessions), at=made.at(2))
    line = command("show", "a", "--json").json["next"]
    assert line == "trainer.fit(model, ckpt_path=checkpointable.latest('a'))"


@pytest.mark.parametrize("word", ["--api-key=***", "..."])
def test_command_that_is_not_all_there_is_not_the_next_line(word, command, tmp_path):
    sessions = [made.session(0, made.at(0), made.at(1)), made.session(1, made.at(1), made.at(2))]
    sessions = [replace(it, command=("train.py", word)) for it in sessions]
    made.write(tmp_path / "a/1.ckpt", of_run=made.history([1.0, 2.0], sessions), at=made.at(2))
    assert command("show", "a", "--json").json["next"].startswith("trainer.fit(")


def test_highest_value_is_best_where_the_mode_is_max(command, tmp_path):
    whole = made.history([0.1, 0.9, 0.5], [made.session(0, made.at(0), made.at(3))], "acc", "max")
    made.write(tmp_path / "a/1.ckpt", of_run=whole, at=made.at(3))
    assert "acc: 3 values, highest 0.9 at epoch 2" in command("show", "a").out


def test_second_fit_of_a_process_is_a_session_of_its_own_and_the_first_was_not_killed(command, tmp_path):
    first, second = made.session(0, made.at(0), made.at(1)), made.session(0, made.at(1), made.at(2))
    whole = made.history([1.0, 2.0], [first, second, made.session(1, made.at(2), made.at(3))])
    made.write(tmp_path / "a/1.ckpt", of_run=whole, at=made.at(3))
    sessions = command("show", "a", "--json").json["run"]["sessions"]
    assert [(it["number"], it["ended"]) for it in sessions] == [(1, "no end noted"), (2, "killed"), (3, "no end noted")]


def test_many_sessions_are_folded(command, tmp_path):
    sessions = [made.session(it, made.at(it), made.at(it + 1)) for it in range(30)]
    made.write(tmp_path / "a/1.ckpt", of_run=made.history([1.0] * 30, sessions), at=made.at(30))
    done = command("show", "a")
    assert "22 more sessions after the first" in done.out
    assert len(done.out.splitlines()) < 40
    assert [line.split()[0] for line in done.out.splitlines() if "/0 to " in line] == ["1", *map(str, range(24, 31))]


def test_history_that_cannot_be_read_is_said_and_is_1(command, tmp_path):
    broken = made.history([1.0], [])
    object.__setattr__(broken, "monitor", 3)
    made.write(tmp_path / "a/1.ckpt", of_run=broken, at=made.at(1), score=1.0)
    done = command("show", "a")
    assert done.code == 1
    assert "its history cannot be read" in done.out


def test_screen_without_unicode_is_drawn_in_ascii(command, tmp_path, monkeypatch):
    made.killed_run(tmp_path / "a")
    monkeypatch.setattr("checkpointable.cli.screen._takes_unicode", lambda _: False)
    done = command("show", "a")
    assert done.out.isascii()
    assert "#" in done.out


def test_path_with_a_space_is_quoted_in_the_next_line(command, tmp_path):
    made.killed_run(tmp_path / "a run")
    DAMAGE["bit"][0](str(tmp_path / "a run" / "epoch_6_batch_0.ckpt"))
    assert shlex.split(command("show", "a run", "--json").json["next"]) == ["checkpointable", "verify", "a run"]


def test_several_places_of_one_run_are_one_run(command, tmp_path):
    made.killed_run(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    done = command("show", "a", "b", "--json")
    assert done.json["run"]["checkpoints"] == 2


def test_positions_of_the_curve_are_those_of_the_run(command, tmp_path):
    made.killed_run(tmp_path / secrets.token_hex(4))
    assert set(command("show", ".", "--json").json["run"]["curve"][0]) == {*vars(Position()), "value"}


def test_run_that_went_back_to_an_older_file_is_shown_where_its_newest_attempt_stands(command, tmp_path):
    made.write(tmp_path / "a/left.ckpt", at=made.at(3), **made.FIRST)
    second = {"attempt": "attempt1", "generation": 1, "ancestors": [{"attempt": "attempt0", "batches": 10}]}
    made.write(tmp_path / "a/newest.ckpt", at=made.at(2), run_id="run1", lineage=second)
    shown = command("show", "a").out
    assert shown.splitlines()[1].startswith(f"{made.at(2)};")
