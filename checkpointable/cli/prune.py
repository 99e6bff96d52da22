"""``checkpointable prune``: says which checkpoints are outdated, and deletes them with ``--yes``."""

from __future__ import annotations

from argparse import Namespace

from checkpointable.catalog.checkpoints import Checkpoints
from checkpointable.cli import words
from checkpointable.cli.checkpoints import name
from checkpointable.cli.screen import CAREFUL, QUIET, Screen


def run(args: Namespace, screen: Screen) -> int:
    """Delete, or say what would be deleted; 1 if there is no checkpoint."""
    found = Checkpoints(args.run)
    sizes = {info.path: info.size for info in found}
    gone = found.prune(keep_last=args.keep_last, keep_best=args.keep_best, dry_run=not args.yes)
    freed, kept = sum(sizes.get(path, 0) for path in gone), len(sizes.keys() - set(gone))
    screen.answer |= {"dry_run": not args.yes, "paths": gone, "size": freed, "kept": kept}
    if not sizes:
        screen.text(f"no checkpoints in {' or '.join(args.run)}.")
        return 1
    for path in gone:
        screen.line_to(name(path, args.run), after=("deleted       " if args.yes else "would delete  ", CAREFUL))
    done = "deleted" if args.yes else "to delete"
    screen.line(f"{words.counted(len(gone), 'checkpoint')} {done}, {words.size(freed)}; {kept} kept")
    if gone and not args.yes:
        screen.text("Nothing was deleted: add --yes to delete.", style=QUIET)
    return 0
