"""A power cut at any point of real saves: what was reported durable is found, and nothing damaged is taken for it.

The system calls of the saves are recorded, and the states that a cut may leave are made from the record (``cuts``).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attacks.power import system_calls
from attacks.power.cuts import without_a_cut
from attacks.power.history import History
from attacks.power.judge import Verdict, judge

RUN = "attacks.power.programs:run"
NAMED = (
    *("saves", "large", "fixed names", "deeper", "directories of others", "several kept", "tight", "fit", "sharded"),
)
TWINS = {
    ("saves", "no sync of files"): {"damaged", "latest", "best"},
    ("saves", "no sync of directories"): {"latest", "best"},
    ("fixed names", "named early"): {"damaged", "latest"},
}


@pytest.fixture(scope="module", autouse=True)
def _strace() -> None:
    why = system_calls.why_not()
    if why is not None:
        pytest.skip(why)


def looked(forge, place: Path, program: str, *, points: int | None = None, **options: str | int) -> Verdict:
    """Record a program, and look at the states after each of its calls, or after so many drawn ones."""
    where, record = place / "recorded", place / "record.txt"
    where.mkdir()
    system_calls.record(forge, RUN, record, where=str(where), program=program, **options)
    history = History(where)
    history.add(system_calls.read(record))
    record.unlink()
    assert without_a_cut(history) == {str(path.relative_to(where)): held(path) for path in where.rglob("*")}
    return judge(history, place, seed=0, points=points)


def held(path: Path) -> bytes | str | None:
    if path.is_symlink():
        return os.readlink(path)
    return None if path.is_dir() else path.read_bytes()


@pytest.mark.parametrize(
    ("program", "points"), [("saves", 60), ("fixed names", 30), ("tight", 50), ("directories of others", 20)]
)
def test_power_cut_at_some_points_loses_nothing(forge, place, program, points):
    verdict = looked(forge, place, program, points=points)
    assert verdict.states > points / 2
    assert verdict.broken == {}


@pytest.mark.sweep
@pytest.mark.parametrize("program", NAMED)
def test_sweep_power_cut_at_every_point_loses_nothing(forge, place, program):
    verdict = looked(forge, place, program)
    assert verdict.states >= 40
    assert verdict.broken == {}


@pytest.mark.sweep
def test_sweep_power_cut_in_drawn_saves_loses_nothing(forge, place):
    states = 0
    for seed in range(70):
        of_seed = place / str(seed)
        of_seed.mkdir()
        verdict = looked(forge, of_seed, "drawn", seed=seed)
        assert verdict.broken == {}, seed
        states += verdict.states
    assert states > 8000


@pytest.mark.parametrize(("program", "twin"), TWINS)
def test_twin_without_a_mechanism_is_found(forge, place, program, twin):
    verdict = looked(forge, place, program, twin=twin, points=8)
    assert verdict.broken.keys() & TWINS[program, twin]


@pytest.mark.sweep
@pytest.mark.parametrize(("program", "twin"), TWINS)
def test_sweep_twin_without_a_mechanism_breaks_each_promise_that_needs_it(forge, place, program, twin):
    assert looked(forge, place, program, twin=twin).broken.keys() >= TWINS[program, twin]
