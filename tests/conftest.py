"""What all tests share: signal handlers, a process group of one, and the report of a sweep of the law.

The report, the share of exact points, is not in ``tests/law``: with ``-n`` the process that prints collects no test,
and loads no ``conftest.py`` of a directory that was not named on the command line.
"""

import signal

import pytest
import torch


@pytest.fixture(autouse=True)
def _signal_handlers():
    """Give each test those of a fresh process: Lightning leaves its own behind where a training is interrupted."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def process_group(tmp_path):
    """A process group of this process alone, so that DDP can be made."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


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
