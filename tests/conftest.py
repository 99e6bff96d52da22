"""Signal handlers for each test, and the share of exact points, printed at the end of a sweep of the law.

The latter is not in ``tests/law``: with ``-n`` the process that prints collects no test, and loads no ``conftest.py``
of a directory that was not named on the command line.
"""

import signal

import pytest


@pytest.fixture(autouse=True)
def _signal_handlers():
    """Give each test those of a fresh process: Lightning leaves its own behind where a training is interrupted."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_terminal_summary(terminalreporter):
    points = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"  # setup and teardown carry the same properties again
        for name, value in report.user_properties
        if name == "law"
    ]
    if points:
        tried, missed = (sum(column) for column in zip(*points, strict=True))
        terminalreporter.write_line(
            f"the law holds at {tried - missed} of {tried} points ({len(points)} configurations)"
        )
