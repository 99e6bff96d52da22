"""``checkpointable ls``: one line for each checkpoint."""

from __future__ import annotations

from argparse import Namespace

from checkpointable.catalog import select
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import Found, scan
from checkpointable.catalog.unusable import why_nothing
from checkpointable.cli import words
from checkpointable.cli.checkpoints import as_json, name
from checkpointable.cli.screen import BAD, GOOD, QUIET, TITLE, Part, Screen

_RIGHT = (2, 3, 4, 5, 6)
_SPARE = (4, 7, 6)  # step, saved, size: what a narrow terminal does without


def run(args: Namespace, screen: Screen) -> int:
    """List what is there; 1 if nothing is."""
    found = scan(args.run)
    best, newest = first_best(found.infos), first_to_resume(found.infos)
    screen.answer |= {
        "checkpoints": [as_json(info) for info in found.infos],
        "unreadable": [{"path": lost.path, "problem": lost.problem} for lost in found.unreadable],
        "best": None if best is None else best.path,
        "last": None if newest is None else newest.path,
        "of_other_libraries": found.others,
    }
    if args.paths:
        for info in found.infos:
            screen.path(info.path)
    elif found.infos or found.unreadable:
        monitors = {info.monitor for info in found.infos if info.score is not None}
        monitor = words.cut(str(*monitors), 16, screen.mark, middle=True) if len(monitors) == 1 else "score"
        titles = ("", "kind", "epoch", "batch", "step", monitor, "size", "saved", "name")
        rows = [
            [_mark(info, best, newest), *_row(info, args.run, screen.mark if len(monitors) > 1 else None)]
            for info in found.infos
        ]
        lost = [[(it, BAD) for it in _lost(path.path, args.run)] for path in found.unreadable]
        screen.table([[(title, TITLE) for title in titles], *rows, *lost], right=_RIGHT, spare=_SPARE)
        _footnotes(found, screen)
    else:
        screen.text(f"{why_nothing(list(args.run), found)}.")
    return 0 if found.infos else 1


def first_best(infos: list[CheckpointInfo]) -> CheckpointInfo | None:
    """The best of all, as far as the descriptions tell."""
    return next(iter(select.by_score(infos, None)), None)


def first_to_resume(infos: list[CheckpointInfo]) -> CheckpointInfo | None:
    """The newest that can be resumed from, as far as the descriptions tell."""
    return next((info for info in reversed(infos) if not info.weights_only), None)


def _mark(info: CheckpointInfo, best: CheckpointInfo | None, newest: CheckpointInfo | None) -> Part:
    return ("*" if info is best else "") + (">" if info is newest else ""), GOOD


def _row(info: CheckpointInfo, places: list[str], mark: str | None) -> list[Part]:
    """A row. The name of the monitor stands in it if ``mark`` is given, for what is cut off its middle."""
    score = "" if info.score is None else words.number(info.score) if mark is None else words.score(info, mark)
    saved = (words.moment(info.created), QUIET)
    position = [str(info.epoch), str(info.batch), str(info.step)]
    return [words.kind(info), *position, score, words.size(info.size), saved, name(info.path, places)]


def _lost(path: str, places: list[str]) -> list[str]:
    return ["!", "damaged", "", "", "", "", "", "", name(path, places)]


def _footnotes(found: Found, screen: Screen) -> None:
    total = words.size(sum(info.size for info in found.infos))
    lost = f", {len(found.unreadable)} not readable (!)" if found.unreadable else ""
    screen.text(f"{words.counted(len(found.infos), 'checkpoint')}, {total}; * best, > newest to resume from{lost}")
    if found.others:
        screen.text(f"and {words.counted(found.others, 'file')} of other libraries")
    for why in found.unreached:
        screen.text(why, style=BAD)
