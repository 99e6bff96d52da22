"""The map in CONTRIBUTING.md names files that exist, at most five for each request."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_FILES = 5
MAP = """
## Where do I change ...?

| request | files |
|---|---|
| Another name | {files} |

## What a change needs
"""


def requests_of(text: str) -> dict[str, list[str]]:
    """Each request of the map, with the paths that its row names."""
    section = text.partition("\n## Where do I change ...?\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {request: re.findall(r"`([\w./]+\.\w+)`", files) for request, files in rows[1:]}


def problems(text: str) -> list[str]:
    """What is wrong with the map in a text."""
    found = []
    for request, paths in requests_of(text).items():
        found += [f"{request}: there is no {path}" for path in paths if not (ROOT / path).is_file()]
        if not 1 <= len(set(paths)) <= MOST_FILES:
            found.append(f"{request}: {len(set(paths))} files")
    return found


def test_map_answers_ten_requests_with_at_most_five_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(requests_of(text)) == 10
    assert problems(text) == []


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ("`checkpointable/policy/which.py` (gone)", "Another name: there is no checkpointable/policy/which.py"),
        ("the room policy", "Another name: 0 files"),
        (
            " ".join(
                f"`checkpointable/{room}/__init__.py`"
                for room in ("policy", "storage", "catalog", "resume", "saving", "module")
            ),
            "Another name: 6 files",
        ),
    ],
)
def test_map_that_is_wrong_is_found(files, problem):
    assert problems(MAP.format(files=files)) == [problem]
