"""Prints the share of exact points at the end of a sweep."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def pytest_terminal_summary(terminalreporter):
    points = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", [])
        if name == "law"
    ]
    if points:
        tried, missed = (sum(column) for column in zip(*points, strict=True))
        terminalreporter.write_line(
            f"the law holds at {tried - missed} of {tried} points ({len(points)} configurations)"
        )
