"""What reads files works in a process that has not imported Lightning."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

READ = """
import sys
from checkpointable import Checkpoints, best, latest
print(latest("empty"), best("empty"), len(Checkpoints("empty")), "lightning" in sys.modules)
"""
SAID = "checkpointable: nothing to resume: empty does not exist.\n"


@pytest.mark.parametrize(
    ("environment", "said"),
    [({}, SAID), ({"RANK": "0", "LOCAL_RANK": "1"}, SAID), ({"LOCAL_RANK": "1"}, ""), ({"SLURM_PROCID": "3"}, "")],
)
def test_latest_of_nothing_is_none_and_rank_zero_says_why(tmp_path, environment, said):
    done = subprocess.run(
        [sys.executable, "-c", READ],
        cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("None None 0 False\n", said)
