"""Each row of the table of tools in docs/how_to/loggers.md names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def missing(text: str) -> list[str]:
    """The rows of the table without such a test."""
    section = text.partition("\n## What works with which tool\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert rows, "no table"
    return [row for row in rows if not _exists(re.search(r"`([\w/]+\.py)::(test_\w+)`", row))]


def _exists(found: re.Match[str] | None) -> bool:
    if found is None or not (ROOT / found[1]).is_file():
        return False
    return f"def {found[2]}(" in (ROOT / found[1]).read_text(encoding="utf-8")


def test_each_row_of_the_table_of_tools_names_a_test_that_exists():
    assert missing((ROOT / "docs/how_to/loggers.md").read_text(encoding="utf-8")) == []


def test_row_without_a_test_that_exists_is_found():
    """The twin."""
    row = "\n## What works with which tool\n| tool | what | shown by |\n|---|---|---|\n| A | all | {} |\n"
    for named in ("", "`tests/documentation/test_table_of_loggers.py::test_gone`", "`tests/gone.py::test_gone`"):
        assert len(missing(row.format(named))) == 1
