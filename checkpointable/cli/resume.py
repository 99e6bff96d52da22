"""``checkpointable resume --dry-run``: what a resume would take, where it goes on, and what would not be exact."""

from __future__ import annotations

from argparse import Namespace

from checkpointable._errors import PolicyError
from checkpointable.catalog.scan import scan
from checkpointable.catalog.unusable import passed_over
from checkpointable.cli import words
from checkpointable.cli.checkpoints import as_json, name, newest
from checkpointable.cli.one_run import FINISHED, read_run
from checkpointable.cli.screen import BAD, CAREFUL, GOOD, QUIET, TITLE, Screen
from checkpointable.policy.verdict import Level, not_exact

_STYLES = {Level.EXACT: GOOD, Level.APPROXIMATE: CAREFUL, Level.LOST: BAD}


def run(args: Namespace, screen: Screen) -> int:
    """Say what would be resumed; 1 if nothing can be."""
    if not args.dry_run:
        raise PolicyError(
            "a run is resumed by its script: trainer.fit(model, ckpt_path=checkpointable.latest(...)). Add --dry-run to"
            " see what that would take."
        )
    choice = newest(args.run)
    info = choice.info
    assert info is not None
    same_run = [it for it in scan(args.run).infos if it.run_id == info.run_id]
    one = read_run(same_run)
    screen.answer |= {"checkpoint": as_json(info), "skipped": choice.skipped, "state": one.state}
    screen.answer["verdicts"] = [{"part": it.part, "level": str(it.level), "why": it.why} for it in info.verdicts]
    screen.answer["is_exact"] = bool(info.verdicts) and not not_exact(info.verdicts)
    screen.line_to(name(info.path, args.run), after=("takes    ", TITLE))
    screen.line(
        ("         ", ""), f"{words.kind(info)}, {words.size(info.size)}, intact, saved ", words.moment(info.created)
    )
    screen.line(("goes on  ", TITLE), f"after {info.at}")
    if one.state == FINISHED and info.path == same_run[-1].path:
        screen.text(
            "the training had ended there: with a larger max_epochs or max_steps it goes on", indent="         "
        )
    screen.line(("exact    ", TITLE), *_summary(info.exactness))
    for verdict in info.verdicts:
        screen.line("         ", (f"{verdict.level:<14}", _STYLES.get(verdict.level, QUIET)), verdict.part)
        if verdict.level != Level.EXACT:
            screen.text(verdict.why, indent="                       ", style=QUIET)
    newer = passed_over(args.run, info.created)
    if newer:
        screen.text(newer, style=CAREFUL)
    screen.text(
        "So the file says. What the script has changed since, such as another data set, shows when it resumes;"
        " strict_resume=True refuses what is not exact.",
        style=QUIET,
    )
    return 0


def _summary(exactness: str | None) -> tuple[tuple[str, str], ...]:
    if exactness is None:
        return (("not known", CAREFUL),)
    is_exact = exactness.startswith("exact")
    return (("yes" if is_exact else "not in all parts", GOOD if is_exact else CAREFUL),)
