"""Prints the share of exact points at the end of a sweep of the law.

Not in ``tests/law``: with ``-n`` the process that prints collects no test, and loads no ``conftest.py`` of a directory
that was not named on the command line.
"""


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
