"""Resumes on another number of ranks: they train, and each of them from one file is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "other_ranks.py"
MIDDLE = "epoch_0_batch_2.ckpt"


def trained(where: Path, file: str, ranks: int, *others: int, **case: Any) -> list[dict[str, Any]]:
    """What each training did: the one without a stop, and two from the file for each other number of ranks."""
    where.mkdir()
    arguments = [str(where), json.dumps({"ranks": ranks, **case}), file, *map(str, others)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False, env=alone)
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def doubled(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("doubled") / "here", MIDDLE, 1, 2)


def test_two_resumes_on_more_ranks_under_other_seeds_are_the_same(doubled):
    _, one, other = doubled
    assert one == other


def test_new_rank_has_random_numbers_of_its_own(doubled):
    zero, one = doubled[1]["outcomes"]
    assert zero["random"] != one["random"]
    assert zero["weights"] == one["weights"]
