"""``checkpointable watch``: a line for each save, while a run trains. It ends at Ctrl-C."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from time import sleep

from checkpointable._errors import RemoteError
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import Found, Unreadable, scan
from checkpointable.catalog.unusable import why_nothing
from checkpointable.cli import words
from checkpointable.cli.answer import FORMAT, encoded
from checkpointable.cli.checkpoints import as_json, name
from checkpointable.cli.screen import BAD, GOOD, QUIET, Screen
from checkpointable.storage.paths import is_remote

_LOCAL_SECONDS, _REMOTE_SECONDS = 1.0, 10.0


def run(args: Namespace, screen: Screen) -> int:
    """Print what is there, and then each save that follows; with ``--once`` 1 if nothing is there."""
    seconds = args.interval or (_REMOTE_SECONDS if any(map(is_remote, args.run)) else _LOCAL_SECONDS)
    screen.is_lines = True
    seen: set[object] = set()
    try:
        found = scan(args.run)
        _print_new(found, seen, args.run, screen)
        if args.once:
            if not found.infos:
                print(f"{why_nothing(args.run, found)}.", file=sys.stderr)
            return 0 if found.infos else 1
        if not found.infos:
            print(f"waiting for the first save in {' or '.join(args.run)} (Ctrl-C ends)", file=sys.stderr)
        while True:
            sleep(seconds)
            _print_new(_look_again(args.run), seen, args.run, screen)
    except KeyboardInterrupt:
        return 0


def _look_again(places: list[str]) -> Found:
    """What is there now; nothing, with a line about it, where a remote file system does not answer for a while."""
    try:
        return scan(places)
    except RemoteError as error:
        print(f"{error} It is asked again.", file=sys.stderr)
        return Found()


def _print_new(found: Found, seen: set[object], places: list[str], screen: Screen) -> None:
    for it in _new(found, seen):
        if screen.as_json:
            _print_json(it, screen)
        elif isinstance(it, Unreadable):
            screen.line(("damaged  ", BAD), name(it.path, places), f": {it.problem}")
        else:
            place, score = f"{f'epoch {it.epoch}, batch {it.batch}':<20}", (words.score(it, screen.mark), GOOD)
            saved, size = (words.clock(it.created), QUIET), (words.size(it.size), QUIET)
            screen.table([[saved, f"{it.kind:<9}", place, score, size, name(it.path, places)]], spare=(4,))
    screen.stream.flush()


def _new(found: Found, seen: set[object]) -> Iterator[CheckpointInfo | Unreadable]:
    """What was not there at the look before. A file that is still damaged is told once."""
    everything: list[CheckpointInfo | Unreadable] = [*found.infos, *found.unreadable]
    for it in everything:
        mark = (it.path, it.problem if isinstance(it, Unreadable) else it.identity)
        if mark not in seen:
            seen.add(mark)
            yield it


def _print_json(it: CheckpointInfo | Unreadable, screen: Screen) -> None:
    what = {"path": it.path, "problem": it.problem} if isinstance(it, Unreadable) else as_json(it)
    print(encoded({"format": FORMAT, "command": "watch", **what}), file=screen.stream, flush=True)
