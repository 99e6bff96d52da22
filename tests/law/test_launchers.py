"""The law on two ranks, however their processes are started; torchrun starts them again by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "launched.py"
PYTHON = [sys.executable]
TORCHRUN = [*PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # else gloo may find addresses of the killed ranks there
WAYS = [(PYTHON, "ddp"), (PYTHON, "ddp_fork"), (PYTHON, "ddp_spawn"), (TORCHRUN, "ddp")]


def run(command, where, strategy, dies_in):
    where.mkdir(exist_ok=True)
    command = [*command, str(SCRIPT), str(where), strategy, str(dies_in)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=os.environ | OWN_STORE)


@pytest.mark.sweep
@pytest.mark.parametrize(("command", "strategy"), WAYS, ids=["ddp", "ddp_fork", "ddp_spawn", "torchrun"])
def test_ranks_that_are_killed_go_on_exactly_by_the_same_command(tmp_path, command, strategy):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    done = run(command, straight, strategy, -1)
    assert done.returncode == 0, done.stderr[-3000:]
    done = run(command, killed, strategy, 7)
    if command is PYTHON:
        assert done.returncode != 0
        done = run(command, killed, strategy, 7)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumes after epoch 1, batch 2 of 5, step 7" in done.stderr
    for rank in (0, 1):
        whole, record = ((where / f"record_{rank}").read_text().splitlines() for where in (straight, killed))
        assert record == whole
        assert (killed / f"final_{rank}").read_text() == (straight / f"final_{rank}").read_text()
