"""``checkpointable verify``: reads every byte, and says which checkpoints are damaged."""

from __future__ import annotations

from argparse import Namespace

from checkpointable.catalog.scan import scan
from checkpointable.catalog.unusable import why_nothing
from checkpointable.cli import words
from checkpointable.cli.checkpoints import name
from checkpointable.cli.screen import BAD, GOOD, QUIET, Screen
from checkpointable.storage import files


def run(args: Namespace, screen: Screen) -> int:
    """Read all of it; 1 if something is damaged, or nothing is there."""
    found = scan(args.run)
    checked: list[dict[str, object]] = []
    for info in found.infos:
        problem = info.verify()
        if problem is not None and not files.is_there(info.path):
            continue  # a run deletes its old ones
        checked.append({"path": info.path, "size": info.size, "problem": problem})
        screen.line_to(name(info.path, args.run), after=("intact   ", GOOD) if problem is None else ("damaged  ", BAD))
        if problem is not None:
            screen.text(problem, indent="         ")
    for lost in found.unreadable:
        checked.append({"path": lost.path, "size": None, "problem": lost.problem})
        screen.line_to(name(lost.path, args.run), after=("damaged  ", BAD))
        screen.text(lost.problem, indent="         ")
    damaged = [it for it in checked if it["problem"] is not None]
    intact = len(checked) - len(damaged)
    screen.answer |= {"checkpoints": checked, "intact": intact, "damaged": len(damaged)}
    if not checked:
        screen.text(f"{why_nothing(list(args.run), found)}.")
        return 1
    read = words.size(sum(info.size for info in found.infos))
    screen.line(f"{intact} intact, {len(damaged)} damaged", (f"; {read} read", QUIET))
    for why in found.unreached:
        screen.text(why, style=BAD)
    return 1 if damaged else 0
