"""``checkpointable report``: one HTML page about runs."""

from __future__ import annotations

import os
from argparse import Namespace

from checkpointable.cli import words
from checkpointable.cli.screen import Screen


def run(args: Namespace, screen: Screen) -> int:
    """Write the page."""
    from checkpointable.catalog.report import write_report

    write_report(args.run, args.output, verify=args.verify)
    written = os.path.abspath(args.output)
    screen.answer |= {"path": written, "size": os.path.getsize(written)}
    screen.line(f"wrote {args.output}, {words.size(os.path.getsize(written))}")
    return 0
