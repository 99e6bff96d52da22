"""Trains a project's own script without a stop, and again with three kills, and compares the two."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
DEADLINE_SECONDS = 1800
KILLS = ("train 5", "validation 2", "train 7")
"""Moments of the kills: a kind of line in the record, and how many of them the process has written by then."""

SAID = r"checkpointable: resumes after.*|.*resume confirmed.*|.*not the same run.*"

Launch = Callable[[Path, dict[str, str]], tuple[int, str]]
"""Runs a script in this directory, with these variables in its environment. Returns its code and what it printed."""


@dataclass
class Result:
    """The parts in which two trainings differ, and what was said at each resume."""

    differing: list[str]
    said: list[str]


def environment(name: str, cache: Path) -> Path:
    """The interpreter of the project's own environment, which is built of its pinned requirements if it is missing."""
    requirements = HERE / name / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    directory = cache / f"{name}-{key}"
    if not (directory / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        install = [directory / "bin/python", "-m", "pip", "install", "--quiet", "--requirement", requirements]
        done = subprocess.run(install, capture_output=True, text=True)
        assert done.returncode == 0, f"cannot build the environment of {name}:\n{done.stderr[-3000:]}"
        (directory / "complete").touch()
    return directory / "bin/python"


def variables() -> dict[str, str]:
    """The environment in which a script finds checkpointable and the recorder."""
    path = os.pathsep.join(map(str, (HERE.parent.parent, HERE / "recorder")))
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def new_interpreters(python: Path, name: str) -> Launch:
    """Run each training in an interpreter of its own."""

    def launch(where: Path, env: dict[str, str]) -> tuple[int, str]:
        done = subprocess.run(
            [python, HERE / name / "train.py"], cwd=where, env={**variables(), **env},
            capture_output=True, text=True, timeout=DEADLINE_SECONDS,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return launch


@contextmanager
def forks(name: str) -> Iterator[Launch]:
    """Run each training in a process that is forked after the script's imports, with this interpreter's packages."""
    command, pipe = [sys.executable, HERE / "forks.py", HERE / name / "train.py"], subprocess.PIPE
    env = {**variables(), "OMP_NUM_THREADS": "1"}  # more are slower for small nets beside other tests
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env, text=True) as parent:
        stdin, stdout = parent.stdin, parent.stdout
        assert stdin is not None
        assert stdout is not None

        def launch(where: Path, env: dict[str, str]) -> tuple[int, str]:
            output = where / "output.txt"
            print(json.dumps({"cwd": str(where), "env": env, "output": str(output)}), file=stdin, flush=True)
            return int(stdout.readline()), output.read_text()

        yield launch
        stdin.close()


def compare(name: str, launch: Launch, where: Path, kills: tuple[str, ...] = KILLS, twin: str = "") -> Result:
    """Train without a stop under seed 1, and again with kills, each resumed under another seed."""
    straight, killed = where / "straight", where / "killed"
    straight.mkdir()
    killed.mkdir()
    choose = random.Random(name)
    train(launch, straight, seed=1)
    said = []
    for seed, moment in enumerate((*kills, ""), start=1):
        kill = f"{moment} {choose.uniform(0, 0.03):.4f}" if moment else ""
        said += re.findall(SAID, train(launch, killed, seed, kill, twin))
    resumes = [values for values in of_kind("start", record_of(killed)).values() if values != ["0\n"]]
    assert len(resumes) == len(kills), f"{len(kills)} kills, and {len(resumes)} resumes"
    return Result(differences(straight, killed), said)


def train(launch: Launch, where: Path, seed: int, kill: str = "", twin: str = "") -> str:
    """Run the script, and let it be killed at this moment. Returns what it printed."""
    env = {"PROJECTS_RECORD": str(where), "PROJECTS_KILL": kill, "PROJECTS_TWIN": twin, "PL_GLOBAL_SEED": str(seed)}
    code, printed = launch(where, env)
    assert code == (-signal.SIGKILL if kill else 0), f"the script ended with {code}:\n{printed[-5000:]}"
    return printed


def differences(straight: Path, killed: Path) -> list[str]:
    """The parts in which two trainings differ: losses, validations, and parts of the state at the end."""
    expected, found = record_of(straight), record_of(killed)
    differing = [
        part
        for kind, part in (("train", "losses"), ("validated", "validations"))
        if of_kind(kind, expected) != of_kind(kind, found)
    ]
    before, after = (json.loads((where / "final.json").read_text()) for where in (straight, killed))
    return differing + [part for part in before if before[part] != after[part]]


def of_kind(kind: str, record: dict[str, list[str]]) -> dict[str, list[str]]:
    return {position: values for position, values in record.items() if position.split()[0] == kind}


def record_of(where: Path) -> dict[str, list[str]]:
    """What was recorded, by position. A batch that was trained again has one entry if it gave the same values."""
    found: dict[str, list[str]] = {}
    for line in (where / "record.txt").read_text().splitlines(keepends=True):
        position, _, values = line.partition(": ")
        if line.endswith("\n") and values not in found.setdefault(position, []):  # a kill may cut the last line
            found[position].append(values)
    return found
