"""A rank that dies, raises or hangs: all processes of the run end, and a save that is under way is finished.

The ranks are launched by Lightning, as for a script with ``devices=2``.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import forked
import pytest
from nets import files

from checkpointable.storage.format import verify

SCRIPT = Path(__file__).parent / "dying_ranks.py"
HAPPENS = [(what, rank) for what in ("killed", "raises", "asleep") for rank in (0, 1)] + [("stopped", 1)]


def start(where, what, rank, seconds=0.0):
    return forked.start(SCRIPT, where, what, rank, seconds, output=where / "output")


def alive(where):
    """Processes of the run that have not ended."""
    found = []
    for process in (where / "processes").read_text().split():
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            continue
        found += [process] if state != "Z" else []
    return found


def all_end(where, process):
    """Wait for it; return the exit status of rank 0, and the seconds since it happened."""
    process.join()
    while alive(where):
        time.sleep(0.1)
    return process.exitcode, time.time() - float((where / "happened").read_text())


@pytest.fixture
def run(tmp_path):
    """Where a run is; whatever is left of it is killed."""
    yield tmp_path
    for process in alive(tmp_path):
        os.kill(int(process), signal.SIGKILL)


def check_resume(where, straight):
    """The same command again trains the rest as the run to which nothing happens does."""
    (name,) = files(where)
    saved = int(name.removesuffix(".ckpt").rpartition("_")[2])
    before = [(where / f"record_{rank}").read_text().splitlines() for rank in (0, 1)]
    process = start(where, "nothing", 0)
    process.join()
    assert process.exitcode == 0, forked.errors_of(where / "output").read_text()[-3000:]
    straight.mkdir()
    assert start(straight, "nothing", 0).join() is None
    for rank in (0, 1):
        whole, record = ((place / f"record_{rank}").read_text().splitlines() for place in (straight, where))
        assert record[len(before[rank]) :] == whole[saved:]


def test_save_under_way_is_finished_where_the_other_rank_is_killed(run):
    """Lightning kills rank 0 up to five seconds after. The file takes longer."""
    code, _ = all_end(run, start(run, "killed", 1, 12.0))
    assert code != 0
    assert files(run) == ["epoch_0_batch_5.ckpt"]
    assert verify.problem(str(run / "files" / "epoch_0_batch_5.ckpt")) is None


def test_rank_that_hangs_does_not_outlive_the_others(run):
    code, _ = all_end(run, start(run, "stopped", 1))
    assert code == 1
    assert "Resume from" in forked.errors_of(run / "output").read_text()


def interrupt_twice(where, pause):
    """A second Ctrl-C while a file is written; return the exit status, and the seconds since."""
    process = start(where, "interrupted", 1, 30.0)
    while not (where / "happened").exists() or not list((where / "files").glob(".checkpointable-*.tmp")):
        time.sleep(0.01)
    time.sleep(pause)  # so that rank 0 waits for the file, or is still in the batch
    (where / "happened").write_text(str(time.time()))
    for each in alive(where):
        os.kill(int(each), signal.SIGINT)
    return all_end(where, process)


@pytest.mark.sweep
@pytest.mark.parametrize("pause", [0, 1])
def test_second_ctrl_c_ends_all_ranks_without_the_file_that_is_written(run, pause):
    code, seconds = interrupt_twice(run, pause)
    assert code in (1, 130), "1 is Lightning's own, where it has not come to the first one yet"
    assert seconds < 25, "the file takes 30 s"
    assert files(run) == []
    start(run, "nothing", 0).join()
    assert not list((run / "files").glob(".checkpointable-*.tmp"))


@pytest.mark.sweep
def test_launched_rank_ends_with_zero_at_sigterm_so_that_rank_0_may_finish_its_file(run, tmp_path_factory):
    """Else Lightning would kill rank 0, which has the exit status of the signal."""
    code, _ = all_end(run, start(run, "terminated", 0, 12.0))
    assert code == 143
    assert files(run) == ["epoch_0_batch_6.ckpt"]
    check_resume(run, tmp_path_factory.mktemp("straight") / "run")


@pytest.mark.sweep
@pytest.mark.parametrize(("what", "rank"), HAPPENS)
def test_all_ranks_end_soon_whatever_happens_to_one_and_the_run_goes_on(run, tmp_path_factory, what, rank):
    """Within 10 s of a death, or of the group's timeout where one hangs; on an idle machine."""
    code, seconds = all_end(run, start(run, what, rank))
    assert code != 0
    assert seconds < (10 if what in ("killed", "raises") else 15)
    check_resume(run, tmp_path_factory.mktemp("straight") / "run")
