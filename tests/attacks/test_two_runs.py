"""Two runs that save in one directory, under the same names; and a reader beside them."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path

import pytest
from invariants import assert_whole
from nets import files, links

from checkpointable import latest
from checkpointable.catalog.info import read_info

TRAIN = "attacks.programs:train"


def wait_for(*paths: Path) -> None:
    while not all(path.exists() for path in paths):
        time.sleep(0.001)


def at_once(forge, where: Path, count: int, **options) -> list[dict]:
    """So many runs, from one moment on."""
    go = where.with_name(f"{where.name}.go")
    where.mkdir(exist_ok=True)
    starts = [go.with_name(f"{go.name}.{number}") for number in range(count)]
    for start in starts:
        start.symlink_to(go)
    children = [forge.start(TRAIN, where=str(where), start=str(start), **options) for start in starts]
    wait_for(*(start.with_name(f"{start.name}.ready") for start in starts))
    go.touch()
    ended = [child.end() for child in children]
    assert [it.code for it in ended] == [0] * count, "\n".join(it.errors for it in ended)
    return [it.result for it in ended]


def by_run(where: Path) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name in files(where):
        found[read_info(str(where / name)).run_id].append(name)
    return dict(found)


def test_two_runs_at_once_lose_no_file_of_each_other(forge, place):
    where = place / "shared"
    results = at_once(forge, where, 2, save_last_k=-1, save_top_k=-1)
    found = by_run(where)
    assert len(found) == 2
    assert sorted(map(len, found.values())) == [6, 6], "three saves an epoch, none lost"
    assert_whole(where)
    assert latest(where) in {result["last"] for result in results}
    assert [result["told"] for result in results] == [[], []]


def keep_their_own(forge, where: Path) -> None:
    results = at_once(forge, where, 2, save_last_k=1, save_top_k=1, epochs=2)
    assert_whole(where)
    pointed = {name: str(where / target) for name, target in links(where).items()}
    assert {pointed["last.ckpt"], pointed["last-v1.ckpt"]} == {result["last"] for result in results}
    assert {pointed["best.ckpt"], pointed["best-v1.ckpt"]} == {result["best"] for result in results}
    assert set(files(where)) >= {Path(result[role]).name for result in results for role in ("last", "best")}
    assert all(len(found) <= 3 for found in by_run(where).values()), "the newest, the best, and the last of all"


def test_two_runs_at_once_each_keep_their_own_newest_and_best_and_links_to_them(forge, place):
    keep_their_own(forge, place / "shared")


@pytest.mark.sweep
def test_sweep_two_runs_at_once_again_and_again(forge, place):
    for number in range(40):
        keep_their_own(forge, place / str(number))


def test_run_after_another_in_the_same_directory_leaves_its_files(forge, place):
    where = place / "shared"
    where.mkdir()
    at_once(forge, where, 1, epochs=1)
    before = {name: (where / name).read_bytes() for name in files(where)}
    second = forge.run("attacks.programs:train_anew", where=str(where), epochs=1).result
    assert {name: (where / name).read_bytes() for name in before} == before
    assert {os.path.basename(second[role]) for role in ("last", "best")} == set(files(where)) - set(before)
    assert latest(where) == second["last"]


def test_reader_never_sees_a_damaged_file_while_two_runs_write_and_delete(forge, place):
    where, until = place / "shared", place / "until"
    where.mkdir()
    reader = forge.start("attacks.programs:read", where=str(where), until=str(until))
    at_once(forge, where, 2, epochs=3, save_interval=1)
    until.touch()
    ended = reader.end()
    assert ended.code == 0, ended.errors
    assert ended.result["done"] > 10
    assert ended.result["damaged"] == []
    assert ended.result["missing"] == 0


def test_twin_that_writes_in_place_shows_the_reader_a_damaged_file(forge, place):
    where, until, seen = place / "own", place / "until", str(place / "seen")
    where.mkdir()
    reader = forge.start("attacks.programs:read", where=str(where), until=str(until), seen=seen)
    ended = forge.run(TRAIN, where=str(where), twin="in place", seen=seen, epochs=1, save_interval=1)
    assert ended.code == 0, ended.errors
    until.touch()
    seen = reader.end()
    assert seen.code == 0, seen.errors
    assert seen.result["damaged"] != []
