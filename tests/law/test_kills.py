"""Real kills: a process is killed with SIGKILL at random moments and run again, and ends like an uninterrupted run."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import forked
import pytest
from doors import DOORS

SCRIPT = Path(__file__).parent / "killable.py"

NO_DIFFERENCE = (
    r"resume confirmed: the (\d+ batches|batch) up to the kill gave the same loss(es)?, bit for bit$"
    "|nothing to compare: the run stopped right after its save$"
)

Moment = Callable[[list[str]], bool]


def lines_of(where: Path) -> list[str]:
    """The record so far, without a line that the kill cut short."""
    record = where / "record.txt"
    lines = record.read_text().splitlines(keepends=True) if record.exists() else []
    return [line for line in lines if line.endswith("\n")]


def run(
    where: Path, moment: Moment | None = None, *, delay_seconds: float = 0.0, door: str = DOORS[0], twin: str = ""
) -> bool:
    """Run the script; kill it soon after its lines say that the moment has come. Returns whether it was killed."""
    replies, said, lines = where / "replies", where / "said", []
    for pipe in (replies, said):
        if not pipe.exists():
            os.mkfifo(pipe)
    child = forked.start(SCRIPT, where, door, twin, output=said, stdin=replies)
    with replies.open("w") as stdin, said.open() as stdout:
        for line in stdout:
            lines.append(line)
            has_come = moment is not None and moment(lines)
            if delay_seconds or not has_come:
                print(file=stdin, flush=True)
            if has_come:
                time.sleep(delay_seconds)
                child.kill()
                break
        child.join()
    assert child.exitcode in (0, -signal.SIGKILL), forked.errors_of(said).read_text()[-3000:]
    return child.exitcode != 0


def merged(lines: list[str]) -> dict[str, str]:
    """The record by batch. Checks that repeated batches were trained in the same way."""
    found: dict[str, str] = {}
    for line in lines:
        *place, indices, loss = line.split()
        did = f"{indices} {loss}"
        assert found.setdefault(" ".join(place), did) == did, line
    return found


def confirmation(where: Path) -> str | None:
    """What the last run said of its resume; ``None`` if it was killed before all was compared."""
    said = re.findall(
        r"(resume confirmed.*|nothing to compare.*|not the same run.*)", forked.errors_of(where / "said").read_text()
    )
    assert len(said) <= 1
    return said[0] if said else None


def after(batches: int) -> Moment:
    return lambda lines: len(lines) >= batches


def in_batch_6(where: Path) -> Moment:
    """In that batch, which waits for the reply, once there is a file: batch 5 is recorded, and no file is newer."""

    def has_come(lines: list[str]) -> bool:
        while len(lines) == 9 and not list(where.glob("*.ckpt")):
            time.sleep(0.01)
        return len(lines) == 9  # with the three of a validation

    return has_come


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


def uninterrupted(where: Path, door: str) -> tuple[dict[str, str], str]:
    assert not run(where, door=door)
    return merged(lines_of(where)), (where / "final.txt").read_text()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return uninterrupted(tmp_path_factory.mktemp("straight"), DOORS[0])


def kill_and_compare(
    where: Path, straight: tuple[dict[str, str], str], kills: int, seed: int, door: str = DOORS[0]
) -> int:
    """Run with this many kills, then to the end. Returns how many kills hit a running training."""
    killed = 0
    for _, (moment, delay_seconds) in zip(range(kills), moments(seed), strict=False):
        if not run(where, moment, delay_seconds=delay_seconds, door=door):
            break
        killed += 1
        assert "not the same" not in (confirmation(where) or "")
    assert not run(where, door=door)
    assert killed == 0 or re.match(NO_DIFFERENCE, confirmation(where) or "")
    assert not list(where.glob("*.trace"))
    record, final = straight
    assert merged(lines_of(where)) == record
    assert (where / "final.txt").read_text() == final
    return killed


def test_run_killed_twice_in_an_epoch_and_in_a_validation_is_the_uninterrupted_run(tmp_path, straight):
    assert kill_and_compare(tmp_path, straight, kills=3, seed=1) == 3


def killed_three_times(where: Path, door: str) -> None:
    (where / "straight").mkdir()
    (where / "killed").mkdir()
    assert kill_and_compare(where / "killed", uninterrupted(where / "straight", door), kills=3, seed=2, door=door) == 3


def test_run_of_the_callback_in_the_second_tree_killed_three_times_is_the_uninterrupted_run(tmp_path):
    killed_three_times(tmp_path, DOORS[3])


@pytest.mark.sweep
@pytest.mark.parametrize("door", DOORS[1:3])
def test_sweep_run_of_another_door_killed_three_times_is_the_uninterrupted_run(tmp_path, door):
    killed_three_times(tmp_path, door)


def test_batches_between_the_file_and_the_kill_confirm_the_resume(tmp_path):
    assert run(tmp_path, in_batch_6(tmp_path))
    assert not run(tmp_path)
    assert re.match(NO_DIFFERENCE.split("|nothing")[0], confirmation(tmp_path) or "")


def test_resume_after_a_kill_with_other_random_numbers_is_called_another_run(tmp_path):
    """The twin."""
    assert run(tmp_path, in_batch_6(tmp_path))
    assert not run(tmp_path, twin="other randomness")
    assert "not the same run: batch" in (confirmation(tmp_path) or "")


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
