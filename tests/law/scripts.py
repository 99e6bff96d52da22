"""Runs a script of several ranks, each on one thread, and reads the lines of JSON that it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def printed(script: str, *arguments: object) -> list[dict[str, Any]]:
    """What a script of this directory prints."""
    command = [sys.executable, str(Path(__file__).parent / script), *map(str, arguments)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False, env=alone)
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
