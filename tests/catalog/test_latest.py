"""What ``latest`` gives, and what it says about the files it skips."""

from __future__ import annotations

import contextlib
import linecache
import os
import threading
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from catalog.conftest import DAMAGE, Make, flip_a_bit, truncate
from nets import write_archive

from checkpointable import CheckpointableWarning, CheckpointFileError, RemoteError
from checkpointable.catalog import scan
from checkpointable.catalog.select import latest

FUTURE = 1e11  # seconds: the year 5138


def test_latest_missing_path_is_none(tmp_path: Path) -> None:
    assert latest(tmp_path / "not" / "there") is None


def test_latest_path_below_a_file_is_none(make: Make) -> None:
    assert latest(os.path.join(make("a.ckpt"), "below")) is None


def test_latest_empty_directory_is_none(tmp_path: Path) -> None:
    assert latest(tmp_path) is None


def test_latest_searches_below_and_takes_str_or_path(make: Make, tmp_path: Path) -> None:
    path = make("version_0/checkpoints/a.ckpt")
    assert latest(tmp_path) == latest(str(tmp_path)) == path


def test_latest_home_directory_is_expanded(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert latest("~/runs") is None
    path = make("runs/a.ckpt")
    assert latest("~") == path


def test_latest_within_a_run_position_decides_even_if_clocks_were_off(make: Make, tmp_path: Path) -> None:
    far = make("far.ckpt", epoch=2, batch=1, created=100.0)
    make("near.ckpt", epoch=1, batch=9, created=900.0)
    assert latest(tmp_path) == far


def test_latest_same_position_the_later_one_is_returned(make: Make, tmp_path: Path) -> None:
    make("b.ckpt", batch=1, created=1.0)
    later = make("a.ckpt", batch=1, created=2.0)
    assert latest(tmp_path) == later


def test_latest_new_run_beats_an_older_longer_one(make: Make, tmp_path: Path) -> None:
    make("old.ckpt", run_id="old", epoch=90, created=1000.0)
    new = make("new.ckpt", run_id="new", epoch=0, created=1001.0)
    assert latest(tmp_path) == new


def test_latest_run_order_counts_its_newest_file_not_its_furthest(make: Make, tmp_path: Path) -> None:
    furthest = make("a2.ckpt", run_id="a", batch=2, created=10.0)
    make("a1.ckpt", run_id="a", batch=1, created=30.0)
    make("b.ckpt", run_id="b", batch=9, created=20.0)
    assert latest(tmp_path) == furthest


def test_latest_weights_only_is_skipped(make: Make, tmp_path: Path) -> None:
    make("weights.ckpt", batch=9, weights_only=True)
    whole = make("whole.ckpt", batch=1)
    assert latest(tmp_path) == whole


def test_latest_manual_file_counts(make: Make, tmp_path: Path) -> None:
    make("interval.ckpt", batch=1)
    mine = make("mine.ckpt", batch=2, kind="manual")
    assert latest(tmp_path) == mine


def test_latest_manual_file_comes_after_a_safe_point_of_the_same_position(make: Make, tmp_path: Path) -> None:
    safe = make("interval.ckpt", batch=1, created=1.0)
    make("mine.ckpt", batch=1, created=2.0, kind="manual")
    assert latest(tmp_path) == safe


def test_latest_files_of_plain_lightning_are_skipped_silently(make: Make, tmp_path: Path) -> None:
    ours = make("ours.ckpt", created=0.0)
    torch.save({"state_dict": {}}, tmp_path / "plain.ckpt")
    assert latest(tmp_path) == ours
    os.remove(ours)
    assert latest(tmp_path) is None


def test_latest_links_in_a_directory_are_skipped(make: Make, tmp_path: Path) -> None:
    path = make("a.ckpt")
    os.symlink("a.ckpt", tmp_path / "z_last.ckpt")
    os.symlink("gone.ckpt", tmp_path / "dangling.ckpt")
    assert latest(tmp_path) == path


@pytest.mark.parametrize("damage", DAMAGE)
def test_latest_newer_file_that_does_not_verify_is_named_with_why(make: Make, tmp_path: Path, damage: str) -> None:
    good = make("good.ckpt", batch=1)
    spoil, why = DAMAGE[damage]
    spoil(make("bad.ckpt", batch=2))
    with pytest.warns(CheckpointableWarning, match=rf"bad\.ckpt: .*{why}.*is .*good\.ckpt\. Replace") as caught:
        assert latest(tmp_path) == good
    assert len(caught) == 1


@pytest.mark.parametrize("damage", DAMAGE)
def test_latest_older_file_that_does_not_verify_is_skipped_silently(make: Make, tmp_path: Path, damage: str) -> None:
    bad, good = make("bad.ckpt", batch=1), make("good.ckpt", batch=2, created=FUTURE)
    DAMAGE[damage][0](bad)
    assert latest(tmp_path) == good


def test_latest_two_damaged_newer_files_give_a_warning_each(make: Make, tmp_path: Path) -> None:
    good = make("good.ckpt", batch=1)
    flip_a_bit(make("bad.ckpt", batch=2))
    truncate(make("worse.ckpt", batch=3))
    with pytest.warns(CheckpointableWarning) as caught:
        assert latest(tmp_path) == good
    assert sorted(os.path.basename(str(w.message).split(": ")[0]) for w in caught) == ["bad.ckpt", "worse.ckpt"]


def test_latest_nothing_verifies_is_none_after_the_warnings(make: Make, tmp_path: Path) -> None:
    flip_a_bit(make("bad.ckpt"))
    with pytest.warns(CheckpointableWarning, match="Pass the path of an intact checkpoint"):
        assert latest(tmp_path) is None


def test_latest_zip_that_torch_did_not_write_is_named(make: Make, tmp_path: Path) -> None:
    good = make("good.ckpt")
    with zipfile.ZipFile(tmp_path / "other.ckpt", "w") as other:
        other.writestr("notes.txt", "hello")
    with pytest.warns(CheckpointableWarning, match="not one that torch.save wrote"):
        assert latest(tmp_path) == good


def test_latest_metadata_without_a_field_is_named(make: Make, tmp_path: Path) -> None:
    good = make("good.ckpt")
    odd = make("odd.ckpt")
    with open(odd, "w+b") as file:
        write_archive({}, file, {"format": 1})
    with pytest.warns(CheckpointableWarning, match=r"odd\.ckpt: has metadata without 'kind', 'reasons'"):
        assert latest(tmp_path) == good


def test_latest_warning_points_at_the_callers_line(make: Make, tmp_path: Path) -> None:
    flip_a_bit(make("bad.ckpt"))
    with pytest.warns(CheckpointableWarning) as caught:
        latest(tmp_path)
    assert caught[0].filename == __file__
    assert "latest(tmp_path)" in linecache.getline(__file__, caught[0].lineno)


def test_latest_file_is_judged_itself(make: Make) -> None:
    older = make("older.ckpt", batch=1)
    make("newer.ckpt", batch=2)
    assert latest(older) == older


def test_latest_file_of_any_name_is_judged(make: Make) -> None:
    path = make("mine.pt", kind="manual")
    assert latest(path) == path


def test_latest_link_to_a_file_gives_the_file(make: Make, tmp_path: Path) -> None:
    path = make("a.ckpt", batch=1)
    make("b.ckpt", batch=2)
    os.symlink("a.ckpt", tmp_path / "last.ckpt")
    assert latest(tmp_path / "last.ckpt") == os.path.realpath(path)


def test_latest_link_to_a_directory_is_searched(make: Make, tmp_path: Path) -> None:
    make("runs/a.ckpt")
    os.symlink("runs", tmp_path / "current")
    assert latest(tmp_path / "current") == str(tmp_path / "current" / "a.ckpt")


def test_latest_link_that_leads_nowhere_is_none_with_a_warning(tmp_path: Path) -> None:
    os.symlink("gone.ckpt", tmp_path / "last.ckpt")
    with pytest.warns(CheckpointableWarning, match=r"links to .*gone\.ckpt, which does not exist.*Pass the path"):
        assert latest(tmp_path / "last.ckpt") is None


@pytest.mark.parametrize("damage", ["bit", "truncated", "empty"])
def test_latest_damaged_file_is_none_with_a_warning(make: Make, damage: str) -> None:
    path = make("bad.ckpt")
    spoil, why = DAMAGE[damage]
    spoil(path)
    with pytest.warns(CheckpointableWarning, match=f"{why}.*Pass the path of an intact checkpoint"):
        assert latest(path) is None


def test_latest_weights_only_file_is_none_with_a_warning(make: Make) -> None:
    with pytest.warns(CheckpointableWarning, match="weights only.*Pass the path of an intact checkpoint"):
        assert latest(make("weights.ckpt", weights_only=True)) is None


def test_latest_text_file_raises_and_says_what_to_pass(tmp_path: Path) -> None:
    (tmp_path / "notes.ckpt").write_text("these are no weights\n")
    with pytest.raises(
        CheckpointFileError, match=r"not a checkpoint.*\. Pass the directory that the checkpoints are in"
    ):
        latest(tmp_path / "notes.ckpt")


def test_latest_other_zip_raises_and_says_what_to_pass(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("notes.txt", "hello")
    with pytest.raises(CheckpointFileError, match=r"not a checkpoint.*Pass the directory"):
        latest(tmp_path / "other.zip")


def test_latest_pipe_raises_and_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ckpt")
    with pytest.raises(CheckpointFileError, match="Pass the directory"):
        latest(tmp_path / "pipe.ckpt")


def test_latest_file_of_plain_lightning_raises_and_says_where_to_pass_it(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "plain.ckpt")
    with pytest.raises(CheckpointFileError, match=r"Pass it to Trainer\.fit\(ckpt_path=\.\.\.\) directly"):
        latest(tmp_path / "plain.ckpt")


def test_latest_url_of_an_unknown_kind_raises_rather_than_start_anew() -> None:
    with pytest.raises(RemoteError, match=r"Protocol not known: nosuch\. Correct the path"):
        latest("nosuch://bucket/runs")


def test_latest_folder_that_cannot_be_listed_is_named(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("runs/a.ckpt")
    make("runs/private/b.ckpt")
    (tmp_path / "runs" / "private").chmod(0)
    monkeypatch.chdir(tmp_path)
    with (
        _without_privileges(tmp_path),
        pytest.warns(CheckpointableWarning, match=r"private: cannot be listed: Permission denied"),
    ):
        assert latest("runs") == "runs/a.ckpt"


def test_latest_file_that_cannot_be_opened_is_named(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("runs/a.ckpt", batch=1)
    os.chmod(make("runs/b.ckpt", batch=2), 0)
    monkeypatch.chdir(tmp_path)
    with _without_privileges(tmp_path), pytest.warns(CheckpointableWarning, match=r"b\.ckpt: .*Permission denied"):
        assert latest("runs") == "runs/a.ckpt"


def test_latest_directory_that_cannot_be_listed_raises(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("runs/a.ckpt")
    (tmp_path / "runs").chmod(0)
    monkeypatch.chdir(tmp_path)
    with _without_privileges(tmp_path), pytest.raises(PermissionError, match="runs"):
        latest("runs")


def test_latest_while_another_process_saves_and_deletes_always_finds_one(make: Make, tmp_path: Path) -> None:
    data = Path(make("runs/0.ckpt")).read_bytes()
    stop = threading.Event()
    saver = threading.Thread(target=_save_and_delete, args=(tmp_path / "runs", data, stop))
    saver.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointableWarning)  # it saves faster than anything could be looked at
            found = [latest(tmp_path / "runs") for _ in range(300)]
    finally:
        stop.set()
        saver.join()
    assert None not in found


class Replaced:
    """Each of the next ``times`` reads finds its file deleted, and a newer one saved in its place."""

    def __init__(self, make: Make, times: int) -> None:
        self.make, self.left, self.newest = make, times, make("runs/0.ckpt", batch=0)
        self._inspect = scan.inspect

    def __call__(self, path: str) -> object:
        if self.left:
            self.left -= 1
            os.remove(self.newest)
            self.newest = self.make(f"runs/{self.left + 1}.ckpt", batch=1000 - self.left)
        return self._inspect(path)


def test_latest_looks_again_as_often_as_a_file_is_replaced_before_it_is_read(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = Replaced(make, times=20)
    monkeypatch.setattr(scan, "inspect", replaced)
    assert latest(tmp_path / "runs") == replaced.newest
    assert replaced.left == 0


def test_latest_that_never_reads_a_file_in_time_raises_rather_than_start_anew(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: without time for another look, none is found where there always is one."""
    monkeypatch.setattr(scan, "inspect", Replaced(make, times=20))
    monkeypatch.setattr(scan, "_LOOK_SECONDS", 0.0)
    with pytest.raises(TimeoutError, match=r"cannot choose a checkpoint at .*runs: .*Stop the process"):
        latest(tmp_path / "runs")


def test_latest_that_finds_another_file_when_time_is_up_names_those_that_were_deleted(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = make("runs/older.ckpt", created=1.0)
    monkeypatch.setattr(scan, "inspect", Replaced(make, times=1))
    monkeypatch.setattr(scan, "_LOOK_SECONDS", 0.0)
    with pytest.warns(CheckpointableWarning, match=r"0\.ckpt: it was deleted while the directory was searched"):
        assert latest(tmp_path / "runs") == older


def _save_and_delete(directory: Path, data: bytes, stop: threading.Event) -> None:
    number = 0
    while not stop.wait(0.0005):
        number += 1
        temporary = directory / "new.tmp"
        temporary.write_bytes(data)
        temporary.rename(directory / f"{number}.ckpt")
        os.remove(directory / f"{number - 1}.ckpt")


@contextlib.contextmanager
def _without_privileges(tmp_path: Path) -> Iterator[None]:
    """Run as a user without privileges, also where the tests run as root."""
    tmp_path.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in tmp_path.rglob("*"):
            path.chmod(0o700)
