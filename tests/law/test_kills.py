"""Real kills: a process is killed with SIGKILL at random moments and run again, and ends like an uninterrupted run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "killable.py"

Moment = Callable[[list[str]], bool]


def lines_of(where: Path) -> list[str]:
    """The record so far, without a line that the kill cut short."""
    record = where / "record.txt"
    lines = record.read_text().splitlines(keepends=True) if record.exists() else []
    return [line for line in lines if line.endswith("\n")]


def run(where: Path, moment: Moment | None = None, *, delay_seconds: float = 0.0) -> bool:
    """Run the script; kill it soon after its lines say that the moment has come. Returns whether it was killed."""
    command, pipe, lines = [sys.executable, str(SCRIPT), str(where)], subprocess.PIPE, []
    with (
        (where / "stderr.txt").open("w") as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        for line in child.stdout:
            lines.append(line)
            print(file=child.stdin, flush=True)
            if moment is not None and moment(lines):
                time.sleep(delay_seconds)
                child.kill()
                break
    assert child.returncode in (0, -signal.SIGKILL), (where / "stderr.txt").read_text()[-3000:]
    return child.returncode != 0


def merged(lines: list[str]) -> dict[str, str]:
    """The record by batch. Checks that repeated batches were trained in the same way."""
    found: dict[str, str] = {}
    for line in lines:
        *place, indices, loss = line.split()
        did = f"{indices} {loss}"
        assert found.setdefault(" ".join(place), did) == did, line
    return found


def after(batches: int) -> Moment:
    return lambda lines: len(lines) >= batches


def in_validation(lines: list[str]) -> bool:
    return bool(lines) and lines[-1].startswith("validate")


def moments(seed: int) -> Iterator[tuple[Moment, float]]:
    """Endless moments: two in the first epoch, then alternately in a validation and anywhere."""
    choose = random.Random(seed)
    yield after(choose.randint(3, 4)), choose.uniform(0, 0.03)
    yield after(choose.randint(1, 2)), choose.uniform(0, 0.03)
    while True:
        yield in_validation, choose.uniform(0, 0.03)
        yield after(choose.randint(1, 6)), choose.uniform(0, 0.03)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    where = tmp_path_factory.mktemp("straight")
    assert not run(where)
    return merged(lines_of(where)), (where / "final.txt").read_text()


def kill_and_compare(where: Path, straight: tuple[dict[str, str], str], kills: int, seed: int) -> int:
    """Run with this many kills, then to the end. Returns how many kills hit a running training."""
    killed = 0
    for _, (moment, delay_seconds) in zip(range(kills), moments(seed), strict=False):
        if not run(where, moment, delay_seconds=delay_seconds):
            break
        killed += 1
    assert not run(where)
    record, final = straight
    assert merged(lines_of(where)) == record
    assert (where / "final.txt").read_text() == final
    return killed


def test_run_killed_twice_in_an_epoch_and_in_a_validation_is_the_uninterrupted_run(tmp_path, straight):
    assert kill_and_compare(tmp_path, straight, kills=3, seed=1) == 3


@pytest.mark.sweep
def test_sweep_run_killed_25_times_is_the_uninterrupted_run(tmp_path, straight):
    killed = 0
    for seed in range(100):
        where = tmp_path / str(seed)
        where.mkdir()
        killed += kill_and_compare(where, straight, kills=min(5, 25 - killed), seed=seed)
        if killed >= 25:
            break
    assert killed >= 25
