"""The example of Ray Train, run by Ray: a worker that is killed is started again and resumes what Ray has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/ray_train.py"


def test_worker_of_ray_that_is_killed_is_started_again_and_resumes_the_checkpoint_that_ray_has():
    pytest.importorskip("ray", reason='pip install "ray[train]": 80 MB, and its own servers')
    ran = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=600)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said[-5000:]
    assert "this worker resumes from: None" in said
    assert "this worker resumes from: epoch_" in said
    assert "Ray has: ['epoch_4_batch_57.ckpt']" in said
