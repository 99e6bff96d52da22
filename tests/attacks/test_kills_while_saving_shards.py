"""SIGKILL at the calls by which a checkpoint in shards reaches the disk: nothing half is found, and nothing is lost."""

from __future__ import annotations

import random
import signal
from collections import defaultdict
from pathlib import Path

import pytest
from invariants import leftovers, position

from checkpointable import latest
from checkpointable.catalog.info import read_info
from checkpointable.storage.format import shards

TRAIN = "attacks.sharded:train"


def calls(record: Path) -> list[tuple[int, str, list[str]]]:
    """Number, call and paths of each."""
    lines = [line.split(" ") for line in record.read_text().splitlines()] if record.exists() else []
    return [(int(number), call, [Path(path).name for path in paths if path]) for number, call, *paths in lines]


def finished(record: Path) -> list[str]:
    """The directories that got their final name, in order."""
    named = [paths[-1] for _, call, paths in calls(record) if call == "rename"]
    return [name for name in named if name.endswith(".ckpt")]


def moments(record: Path) -> dict[str, list[int]]:
    """The numbers of the calls, by what they do."""
    found = defaultdict(list)
    for number, call, paths in calls(record):
        end = paths[-1] if paths else ""
        kind = "temporary" if end.startswith(".checkpointable-") else "name" if end.endswith(".ckpt") else end
        found[f"{call} {kind}".strip()].append(number)
    return dict(found)


@pytest.fixture(scope="module")
def straight(forge, tmp_path_factory):
    """The calls of a run that nobody kills."""
    where = tmp_path_factory.mktemp("straight")
    ended = forge.run(TRAIN, where=str(where), record=str(where / "record.txt"))
    assert ended.code == 0, ended.errors
    assert len(finished(where / "record.txt")) >= 5
    return moments(where / "record.txt")


def struck(forge, where: Path, number: int, **options) -> list[str]:
    where.mkdir(exist_ok=True)
    ended = forge.run(TRAIN, where=str(where), record=str(where / "record.txt"), strike=number, **options)
    assert ended.code in (0, -signal.SIGKILL), ended.errors
    return finished(where / "record.txt")


def assert_nothing_is_lost(where: Path, names: list[str]) -> None:
    for path in where.glob("*.ckpt"):
        assert path.exists(), f"{path.name} leads nowhere"
        assert shards.problem(path) is None
    if names:
        found = latest(where)
        assert found is not None, f"{names[-1]} was complete, and nothing is found"
        assert read_info(found).at >= position(names[-1])


def assert_goes_on(forge, where: Path) -> None:
    """The same script, started again, reaches the end, and leaves nothing half."""
    ended = forge.run(TRAIN, where=str(where), record=str(where / "again.txt"))
    assert ended.code == 0, ended.errors
    assert read_info(ended.result).batches == 12
    assert not leftovers(where)


def test_kill_at_each_kind_of_call_loses_nothing(forge, place, straight):
    expected = {
        "mkdir temporary", "rename .metadata", "rename name", "rename temporary", "fsync", "symlink temporary",
        "replace name", "rmdir temporary",
    }  # fmt: skip
    assert expected <= set(straight)
    choose = random.Random(0)
    for kind, numbers in straight.items():
        number = choose.choice(numbers)
        where = place / f"{kind} {number}"
        assert_nothing_is_lost(where, struck(forge, where, number))
        if kind in ("rename name", "rmdir temporary"):
            assert_goes_on(forge, where)


@pytest.mark.sweep
def test_sweep_kill_at_every_call_loses_nothing(forge, place, straight):
    numbers = sorted(number for found in straight.values() for number in found)
    assert len(numbers) > 100
    for number in numbers:
        where = place / str(number)
        assert_nothing_is_lost(where, struck(forge, where, number))
        assert_goes_on(forge, where)


def test_twin_that_deletes_first_is_found_by_a_kill(forge, place, straight):
    def loses(number: int) -> bool:
        where = place / str(number)
        try:
            assert_nothing_is_lost(where, struck(forge, where, number, twin="delete first"))
        except AssertionError:
            return True
        return False

    assert any(loses(number) for number in straight["rename .metadata"])
