"""A report of runs as one HTML file."""

from checkpointable.catalog.report.write import write_report

__all__ = ["write_report"]
