"""SIGKILL at the calls by which a save reaches memory and disk, one after the other, and at random moments."""

from __future__ import annotations

import random
import signal
import time
from collections import defaultdict
from pathlib import Path

import pytest
from attacks.record import saved
from invariants import assert_newest_is, assert_whole, leftovers

TRAIN = "attacks.programs:train"


def moments(record: Path) -> dict[str, list[int]]:
    """The numbers of the calls, by what they do."""
    found = defaultdict(list)
    for line in record.read_text().splitlines():
        number, call, *paths = line.split(" ")
        target = Path(paths[-1]).name if paths else ""
        kind = target if target in ("last.ckpt", "best.ckpt") else "temporary" if target.startswith(".") else "file"
        found[f"{call} {kind if target else ''}".strip()].append(int(number))
    return dict(found)


@pytest.fixture(scope="module")
def straight(forge, tmp_path_factory):
    """The calls of a run that nobody kills."""
    where = tmp_path_factory.mktemp("straight")
    record = where / "record.txt"
    ended = forge.run(TRAIN, where=str(where), record=str(record))
    assert ended.code == 0, ended.errors
    assert len(saved(record)) >= 5
    return moments(record)


def struck(forge, where: Path, number: int, **options) -> list[str]:
    """A run that is killed before a call, and what it had saved until then."""
    where.mkdir(exist_ok=True)
    record = where / "record.txt"
    ended = forge.run(TRAIN, where=str(where), record=str(record), strike=number, **options)
    assert ended.code in (0, -signal.SIGKILL), ended.errors
    return saved(record)


def assert_nothing_is_lost(where: Path, names: list[str]) -> None:
    assert_whole(where)
    if names:
        assert_newest_is(where, names[-1])


def test_kill_at_each_kind_of_call_loses_nothing(forge, place, straight):
    expected = {
        "memmove", "write", "ftruncate", "fsync", "link file", "unlink temporary", "symlink temporary",
        "replace last.ckpt", "replace best.ckpt", "unlink file",
    }  # fmt: skip
    assert set(straight) == expected
    choose = random.Random(0)
    for kind, numbers in straight.items():
        for number in sorted(choose.sample(numbers, k=1 if kind in ("ftruncate", "memmove") else 2)):
            where = place / f"{kind} {number}"
            assert_nothing_is_lost(where, struck(forge, where, number))


@pytest.mark.sweep
def test_sweep_kill_at_every_call_loses_nothing(forge, place, straight):
    numbers = sorted(number for found in straight.values() for number in found)
    assert len(numbers) > 100
    for number in numbers:
        where = place / str(number)
        assert_nothing_is_lost(where, struck(forge, where, number))


def loses(where: Path, names: list[str]) -> bool:
    try:
        assert_nothing_is_lost(where, names)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("twin", ["in place", "delete first"])
def test_twin_that_breaks_the_order_is_found_by_a_kill(forge, place, straight, twin):
    places = ((number, place / str(number)) for number in straight["write"])
    assert any(loses(where, struck(forge, where, number, twin=twin)) for number, where in places)


def calls(record: Path) -> list[str]:
    return record.read_text().splitlines() if record.exists() else []


def deletes(call: str) -> bool:
    """Whether a call deletes a checkpoint."""
    return " unlink " in call and call.endswith(".ckpt")


def storm(forge, where: Path, seed: int, kills: int) -> tuple[int, int]:
    """Kill a run again and again, each time going on from what is there. How many kills struck, and swept leftovers."""
    choose = random.Random(seed)
    record, done, swept = where / "record.txt", 0, 0
    newest, between = None, 0
    while done < kills:
        before, old = leftovers(where), calls(record)
        ended = forge.run(TRAIN, where=str(where), record=str(record), strike=choose.randint(1, 70))
        assert ended.code in (0, -signal.SIGKILL), ended.errors
        assert_whole(where)
        names = saved(record)
        if names:
            found = assert_newest_is(where, names[-1])
            assert newest is None or found >= newest
            newest = found
        new = calls(record)[len(old) :]
        between = 0 if any(map(deletes, new)) else between + 1  # kills of saves that had not come to deleting
        assert len([path for path in where.glob("*.ckpt") if not path.is_symlink()]) <= 4 + between
        if any(" memmove" in call for call in new):  # it got as far as training
            assert not before & leftovers(where), "the next start sweeps"
            swept += len(before)
        if ended.code == 0:
            break
        done += 1
    return done, swept


def test_storm_of_kills_in_one_directory_gets_on_and_leaves_no_litter(forge, place):
    done = swept = 0
    for seed in range(8):
        where = place / str(seed)
        where.mkdir()
        kills, found = storm(forge, where, seed, kills=6)
        done, swept = done + kills, swept + found
        if done >= 12 and swept:
            break
    assert done >= 12
    assert swept > 0


@pytest.mark.sweep
def test_sweep_storm_of_hundreds_of_kills(forge, place):
    done = seed = 0
    while done < 300:
        seed += 1
        where = place / str(seed)
        where.mkdir()
        done += storm(forge, where, seed, kills=20)[0]


def at_random(forge, where: Path, choose: random.Random) -> bool:
    """A kill some milliseconds after the first file of this endless child has appeared. Returns whether it struck."""
    where.mkdir()
    child = forge.start(TRAIN, where=str(where), record=str(where / "record.txt"), epochs=1_000_000)
    while not saved(where / "record.txt"):
        time.sleep(0.001)
    time.sleep(choose.uniform(0, 0.1))
    child.kill()
    ended = child.end()
    assert_nothing_is_lost(where, saved(where / "record.txt"))
    return ended.code == -signal.SIGKILL


def test_kill_at_a_random_moment_loses_nothing(forge, place):
    choose = random.Random(0)
    assert sum(at_random(forge, place / str(number), choose) for number in range(10)) == 10


@pytest.mark.sweep
def test_sweep_kill_at_hundreds_of_random_moments_loses_nothing(forge, place):
    choose = random.Random(1)
    assert sum(at_random(forge, place / str(number), choose) for number in range(300)) == 300
