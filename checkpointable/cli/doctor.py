"""``checkpointable doctor``: whether a directory can be relied on."""

from __future__ import annotations

from argparse import Namespace

from checkpointable.catalog.directory_report import doctor
from checkpointable.cli.screen import BAD, CAREFUL, GOOD, QUIET, TITLE, Screen
from checkpointable.storage.findings import Outcome

_STYLES = {Outcome.OK: GOOD, Outcome.WARNING: CAREFUL, Outcome.PROBLEM: BAD, Outcome.UNKNOWN: QUIET}


def run(args: Namespace, screen: Screen) -> int:
    """Try out what saving stands on; 1 if saving or resuming fails there."""
    found = doctor(args.run)
    counts = {str(outcome): sum(it.outcome == outcome for it in found) for outcome in Outcome}
    screen.answer |= {"findings": found.to_dicts(), "counts": counts}
    for finding in found:
        screen.line((f"{finding.outcome:<9}", _STYLES[finding.outcome]), (finding.what, TITLE))
        screen.text(f"{finding.detail} {finding.cure}".strip(), indent="         ")
    screen.line(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count))
    return 1 if found.problems else 0
