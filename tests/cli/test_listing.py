"""``ls``, ``verify``, ``prune``, ``doctor``, ``resume --dry-run`` and ``report``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from catalog.conftest import DAMAGE
from cli import made


@pytest.fixture
def run(tmp_path):
    """A directory with the killed run, and an outdated file of it."""
    made.killed_run(tmp_path / "a")
    made.write(tmp_path / "a/epoch_1.ckpt", at=made.at(1), kind="interval", **made.FIRST)
    return tmp_path / "a"


def test_ls_lists_newest_last_and_marks_best_last_and_damaged(run, command):
    DAMAGE["truncated"][0](made.write(run / "z.ckpt", at=made.at(1)))
    done = command("ls", "a")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split()[:4] == ["kind", "epoch", "batch", "val_loss"]
    assert [line.split()[-1] for line in lines[1:5]] == [
        *("epoch_1.ckpt", "best_val_loss_epoch_4.ckpt", "epoch_6_batch_0.ckpt", "z.ckpt")
    ]
    assert [line[:1] for line in lines[1:5]] == [" ", "*", ">", "!"]
    assert lines[5].startswith("3 checkpoints, ")


def test_ls_of_a_wide_terminal_has_steps_and_times(run, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "130")
    assert command("ls", "a").out.split()[:8] == ["kind", "epoch", "batch", "step", "val_loss", "size", "saved", "name"]


def test_ls_paths_prints_whole_paths_alone(run, command):
    long = run / ("d" * 100)
    path = made.write(long / f"{'n' * 100}.ckpt", at=made.at(7))
    printed = command("ls", "a", "--paths").out.splitlines()
    assert [Path(it).resolve() for it in printed][-1] == Path(path)
    assert len(printed) == 4


def test_ls_paths_prints_the_bytes_of_names_that_are_no_text(run):
    odd = os.fsencode(run) + b"/\xff\n.ckpt"
    os.rename(made.write(run / "x.ckpt", at=made.at(7)), odd)
    done = subprocess.run([sys.executable, "-m", "checkpointable", "ls", run, "--paths"], stdout=subprocess.PIPE)
    assert done.stdout.endswith(odd + b"\n")


def test_long_names_of_monitors_and_files_are_cut_in_their_middle(run, command):
    long = "validation/classification/weighted_average_precision"
    for epoch in (1, 2):
        name = f"best_{long.replace('/', '_')}_epoch_{epoch}.ckpt"
        made.write(run / "long" / name, score=epoch / 10, monitor=long, at=made.at(epoch), run_id="run1")
    made.write(run / "long" / "acc.ckpt", score=0.5, monitor="acc", mode="max", at=made.at(3), run_id="run1")
    (line,) = (line for line in command("ls", "a/long").out.splitlines() if "validation…precision=0.2" in line)
    assert line.endswith("_2.ckpt")
    assert "_epoch_1.ckpt" in command("verify", "a/long").out
    assert "_epoch_1.ckpt" in command("prune", "a/long", "--keep-best", "0").out


def test_ls_of_several_monitors_names_each(run, command):
    made.write(run / "acc.ckpt", score=0.5, monitor="acc", mode="max", at=made.at(2), run_id="other")
    out = command("ls", "a").out
    assert "score" in out.splitlines()[0]
    assert "acc=0.5" in out
    assert "val_loss=0.9" in out


def test_ls_answers_with_all_that_a_file_tells(run, command):
    answer = command("ls", "a", "--json").json
    assert [Path(it["path"]).name for it in answer["checkpoints"]] == [
        *("epoch_1.ckpt", "best_val_loss_epoch_4.ckpt", "epoch_6_batch_0.ckpt")
    ]
    assert Path(answer["best"]).name == "best_val_loss_epoch_4.ckpt"
    assert Path(answer["last"]).name == "epoch_6_batch_0.ckpt"
    assert set(answer["checkpoints"][0]) == {
        *("path", "kind", "reasons", "epoch", "batch", "step", "batches", "metrics", "monitor", "mode", "score"),
        *("created", "size", "run_id", "attempt", "generation", "resumed_from", "exactness", "weights_only", "weights"),
    }


def test_ls_of_a_url_is_that_of_the_directory(run, command, at_url):
    local, remote = command("ls", "a").out, command("ls", at_url(run)).out
    assert remote == local


@pytest.mark.parametrize(
    ("kind", "why"),
    [("bit", "bytes were changed"), ("truncated", "not an intact zip archive"), ("empty", "an empty file")],
)
def test_verify_finds_the_damaged_file_and_is_1(kind, why, run, command):
    assert "\n3 intact, 0 damaged; " in command("verify", "a").out
    DAMAGE[kind][0](str(run / "epoch_1.ckpt"))
    done = command("verify", "a")
    assert done.code == 1
    assert "damaged  epoch_1.ckpt" in done.out
    assert why in " ".join(done.out.split())
    answer = command("verify", "a", "--json").json
    assert (answer["intact"], answer["damaged"], answer["exit_code"]) == (2, 1, 1)


def test_verify_reads_a_remote_file_to_its_end(run, command, at_url):
    DAMAGE["bit"][0](str(run / "epoch_1.ckpt"))
    assert command("ls", at_url(run)).code == 0
    assert command("verify", at_url(run)).code == 1


def test_prune_deletes_nothing_until_it_is_told_to(run, command):
    before = sorted(os.listdir(run))
    done = command("prune", "a")
    assert done.code == 0
    assert "would delete  epoch_1.ckpt" in done.out
    assert "add --yes to delete" in done.out
    assert sorted(os.listdir(run)) == before
    answer = command("prune", "a", "--yes", "--json").json
    assert [Path(it).name for it in answer["paths"]] == ["epoch_1.ckpt"]
    assert (answer["dry_run"], answer["kept"]) == (False, 2)
    assert sorted(os.listdir(run)) == [it for it in before if it != "epoch_1.ckpt"]
    assert "0 checkpoints deleted" in command("prune", "a", "--yes").out


def test_prune_keeps_as_many_as_it_is_told_to(run, command):
    assert "epoch_1.ckpt" not in command("prune", "a", "--keep-last", "3").out
    assert "epoch_1.ckpt" not in command("prune", "a", "--keep-last", "-1").out


def test_prune_with_a_count_that_is_none_is_2(run, command):
    done = command("prune", "a", "--keep-last", "-2")
    assert done.code == 2
    assert "allowed: a count from 0 on, or -1 to keep all" in done.err


def test_doctor_prints_findings_and_is_1_where_there_is_a_problem(run, command):
    done = command("doctor", "a")
    assert done.code == 0
    assert "3 intact, each read to its end" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    DAMAGE["bit"][0](str(run / "epoch_1.ckpt"))
    answer = command("doctor", "a", "--json")
    assert answer.code == 1
    assert answer.json["counts"]["problem"] == 1
    assert any(it["what"] == "damaged file" for it in answer.json["findings"])


def test_doctor_on_a_file_is_2(run, command):
    done = command("doctor", "a/epoch_1.ckpt")
    assert done.code == 2
    assert "Pass the directory it is in" in done.err


def test_doctor_examines_a_url(run, command, at_url):
    assert "checkpoints" in command("doctor", at_url(run)).out


def test_resume_says_what_it_takes_where_it_goes_on_and_what_is_not_exact(run, command):
    verdicts = [
        {"part": "weights", "level": "exact", "why": "put back, and found the same"},
        {"part": "train loader", "level": "approximate", "why": "it has no length"},
    ]
    made.write(
        run / "epoch_7.ckpt",
        at=made.at(7, 3),
        kind="interval",
        exactness="train loader: approximate (it has no length)",
        verdicts=verdicts,
        run_id="run1",
        lineage={"attempt": "attempt2", "generation": 2, "ancestors": []},
    )
    done = command("resume", "a", "--dry-run")
    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert ["takes", "epoch_7.ckpt"] in lines
    assert "goes on  after epoch 7, batch 3, step 73" in done.out
    assert "exact    not in all parts" in done.out
    assert ["approximate", "train", "loader"] in lines
    assert ["it", "has", "no", "length"] in lines
    answer = command("resume", "a", "--dry-run", "--json").json
    assert answer["verdicts"] == verdicts
    assert answer["is_exact"] is False


def test_resume_passes_over_a_damaged_file_and_names_it(run, command):
    DAMAGE["bit"][0](str(run / "epoch_6_batch_0.ckpt"))
    done = command("resume", "a", "--dry-run", "--json")
    assert done.json["checkpoint"]["path"].endswith("best_val_loss_epoch_4.ckpt")
    assert [Path(it).name for it in done.json["skipped"]] == ["epoch_6_batch_0.ckpt"]
    assert "skipped" in done.err


def test_resume_of_weights_alone_is_1_with_the_reason(command, tmp_path):
    made.write(tmp_path / "a.ckpt", weights_only=True)
    done = command("resume", "--dry-run", ".")
    assert done.code == 1
    assert "none in . can be resumed from: 1 with weights only" in done.err


def test_resume_of_a_run_that_has_finished_says_so(command, tmp_path):
    made.write(tmp_path / "a.ckpt", kind="last", at=made.at(3))
    assert "with a larger max_epochs" in command("resume", "--dry-run", ".").out


def test_resume_without_dry_run_is_2_and_names_the_line_of_the_script(run, command):
    done = command("resume", "a")
    assert done.code == 2
    assert "trainer.fit(model, ckpt_path=checkpointable.latest(...)). Add --dry-run" in done.err


def test_resume_from_a_url(run, command, at_url):
    done = command("resume", "--dry-run", at_url(run))
    assert done.code == 0
    assert "takes    epoch_6_batch_0.ckpt" in done.out


def test_report_writes_a_page_that_names_every_file(run, command, tmp_path):
    done = command("report", "a", "-o", "run.html")
    assert done.code == 0
    assert done.out.startswith("wrote run.html, ")
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "epoch_6_batch_0.ckpt" in page
    assert command("report", "a", "-o", "run.html", "--no-verify", "--json").json["path"] == str(tmp_path / "run.html")


@pytest.mark.parametrize(("place", "target", "code"), [("nothing", "run.html", 1), ("a", "run.ckpt", 2)])
def test_report_of_nothing_is_1_and_to_no_page_is_2(place, target, code, run, command, tmp_path):
    assert command("report", place, "-o", target).code == code
    assert not (tmp_path / target).exists()
