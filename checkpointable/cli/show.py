"""``checkpointable show``: one run on one screen, and the next line to type."""

from __future__ import annotations

import shlex
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import Found, scan
from checkpointable.catalog.unusable import why_nothing
from checkpointable.cli import curve, words
from checkpointable.cli.checked import Checked, Files, check
from checkpointable.cli.checkpoints import as_json, name
from checkpointable.cli.next_line import Next, next_line
from checkpointable.cli.one_run import FINISHED, RUNNING, Run, Session, read_run
from checkpointable.cli.screen import BAD, CAREFUL, GOOD, QUIET, TITLE, Part, Screen

_MOST_SESSIONS = 8
_MOST_OTHERS = 5


def run(args: Namespace, screen: Screen) -> int:
    """Show the newest run there, or the one that was asked for; 1 if there is none, or it has damaged files."""
    found = scan(args.run)
    runs: dict[str, list[CheckpointInfo]] = {}
    for info in found.infos:
        runs.setdefault(info.run_id, []).append(info)
    wanted = args.run_id or (found.infos[-1].run_id if found.infos else "")
    chosen = next((infos for run_id, infos in reversed(runs.items()) if run_id.startswith(wanted)), None)
    if chosen is None:
        why = f"no run {wanted} in {' or '.join(args.run)}" if wanted else why_nothing(list(args.run), found)
        screen.text(f"{why}. {_known(runs)}".strip())
        screen.answer |= {"run": None, "unreadable": _unreadable(found), "other_runs": list(runs)}
        return 1
    one = read_run(chosen)
    files = check(one, found, reads_all=args.verify)
    following = next_line(one, files, args.run)
    others = [infos for run_id, infos in runs.items() if run_id != one.run_id]
    screen.answer |= _answer(one, files, following, others)
    _head(one, screen)
    _curve(one, screen)
    _sessions(one, screen)
    _files(files, args.run, screen)
    _exactness(files, screen)
    _others(others, screen)
    for why in found.unreached:
        screen.text(why, style=BAD)
    screen.line(("next: ", TITLE), following.line, whole=True)
    if following.why:
        screen.text(following.why, indent="      ", style=QUIET)
    return 1 if files.damaged or one.history_problem else 0


def _known(runs: dict[str, list[CheckpointInfo]]) -> str:
    return f"There are {', '.join(runs)}." if runs else ""


def _head(one: Run, screen: Screen) -> None:
    style = {FINISHED: GOOD, RUNNING: GOOD}.get(one.state, CAREFUL)
    screen.line((f"run {one.run_id}", TITLE), ": ", (one.state, style))
    ago = words.duration(max(time.time() - max(info.created for info in one.infos), 0))
    kept = f"{words.counted(len(one.infos), 'checkpoint')}, {words.size(one.size)}"
    screen.line(f"{one.newest.at}; {kept}; saved {ago} ago")
    screen.line()


def _curve(one: Run, screen: Screen) -> None:
    if one.monitor is None or not one.curve:
        screen.line("no value was compared (monitor)")
        screen.line()
        return
    best, wish = one.best_value(), "highest" if one.mode == "max" else "lowest"
    first, last = words.number(one.curve[0].value), words.number(one.curve[-1].value)
    found = "" if best is None else f", {wish} {words.number(best.value)} at {best.position}"
    is_log = curve.wants_log_scale(one.curve, one.mode)
    count = words.counted(len(one.curve), "value") + (" of more" if one.is_thinned else "")
    count += ", log scale" if is_log else ""
    screen.line((words.cut(one.monitor, 24, screen.mark, middle=True), TITLE), f": {count}{found}")
    end = one.newest.batches
    width = screen.width - len(first) - len(last) - 4
    line = curve.sparkline(one.curve, end, width, is_log=is_log, is_unicode=screen.is_unicode)
    screen.line((first, QUIET), "  ", (line, GOOD), "  ", (last, TITLE))
    below = curve.timeline(one.sessions, end, width, is_unicode=screen.is_unicode)
    screen.line(" " * (len(first) + 2), (below, QUIET))
    if one.metrics_left_out:
        lost = words.counted(one.metrics_left_out, "metric")
        screen.line((f"{lost} had no room in the history; your logger has all", QUIET))
    screen.line()


def _sessions(one: Run, screen: Screen) -> None:
    known = one.sessions
    shown = known if len(known) <= _MOST_SESSIONS else [known[0], *known[1 - _MOST_SESSIONS :]]
    screen.line(("sessions", TITLE))
    rows: list[list[Part]] = [[(title, QUIET) for title in ("", "began", "lasted", "epoch/batch", "ended")]]
    for session in shown:
        style = QUIET if session.ended == FINISHED else CAREFUL
        reach = f"{'?' if session.begins is None else _short(session.begins)} to {_short(session.ends)}"
        lasted = words.duration(max(session.last_seen - session.started, 0))
        rows.append([f"  {session.number}", words.moment(session.started), lasted, reach, (_ended(session), style)])
    screen.table(rows, right=(0, 2))
    hidden = known[-1].number - len(shown)
    if hidden > 0:
        screen.line((f"  {words.counted(hidden, 'more session')} after the first", QUIET))
    for change in () if known[-1].record is None else known[-1].record.changes:
        screen.text(f"session {known[-1].number} changed {change}", indent="     ", style=QUIET)
    if one.history_problem:
        screen.text(f"its history cannot be read: {one.history_problem}", style=BAD)
    screen.line()


def _short(position: Any) -> str:
    return f"{position.epoch}/{position.batch}"


def _ended(session: Session) -> str:
    record = session.record
    if record is None or record.confirmed_batches is None:
        return session.ended
    if record.first_difference is not None:
        return f"{session.ended}; differs from batch {record.first_difference} on"
    return f"{session.ended}; resume confirmed"


def _files(files: Files, places: list[str], screen: Screen) -> None:
    screen.line(("checkpoints", TITLE))
    rows: list[list[Part]] = []
    for role, checked in (("best", files.best), ("last", files.last)):
        if checked is not None:
            info, verdict = checked.info, _verdict(checked)
            what = words.score(info, screen.mark) if role == "best" else _short_place(info)
            rows.append([f"  {role}", verdict, what, words.size(info.size), name(info.path, places)])
    rows += [["  ", ("damaged", BAD), "", "", name(path, places)] for path in files.damaged]
    screen.table(rows, right=(3,))
    for problem in files.damaged.values():
        screen.text(problem, indent="     ", style=BAD)
    screen.line()


def _short_place(info: CheckpointInfo) -> str:
    return f"epoch {info.epoch}, batch {info.batch}"


def _verdict(checked: Checked) -> tuple[str, str]:
    return ("intact", GOOD) if checked.is_read else ("not read", QUIET)


def _exactness(files: Files, screen: Screen) -> None:
    if files.last is not None:
        screen.text(f"a resume from the last one is: {files.last.info.exactness or 'not known how exact'}")
        screen.line()


def _others(others: Sequence[list[CheckpointInfo]], screen: Screen) -> None:
    if not others:
        return
    screen.line((f"{words.counted(len(others), 'other run')} here", TITLE), ("  (--run-id ID shows one)", QUIET))
    rows = []
    for infos in list(others)[-_MOST_OTHERS:]:
        newest, scored = infos[-1], [words.score(info, screen.mark) for info in infos if info.score is not None]
        kept = words.counted(len(infos), "checkpoint")
        rows.append([f"  {newest.run_id}", kept, words.moment(newest.created), scored[-1] if scored else ""])
    screen.table(rows)
    screen.line()


def _answer(one: Run, files: Files, following: Next, others: Sequence[list[CheckpointInfo]]) -> dict[str, Any]:
    def checked(it: Checked | None) -> dict[str, Any] | None:
        return None if it is None else {**as_json(it.info), "is_verified": it.is_read}

    best = one.best_value()
    return {
        "run": {
            "run_id": one.run_id,
            "state": one.state,
            "monitor": one.monitor,
            "mode": one.mode,
            "best_value": None if best is None else best.value,
            "is_thinned": one.is_thinned,
            "metrics_left_out": one.metrics_left_out,
            "curve": [{**vars(it.position), "value": it.value} for it in one.curve],
            "sessions": [_session(it) for it in one.sessions],
            "best": checked(files.best),
            "last": checked(files.last),
            "damaged": [{"path": path, "problem": problem} for path, problem in files.damaged.items()],
            "checkpoints": len(one.infos),
            "size": one.size,
            "exactness": None if files.last is None else files.last.info.exactness,
            "history_problem": one.history_problem,
        },
        "next": following.line,
        "other_runs": [infos[-1].run_id for infos in others],
    }


def _session(session: Session) -> dict[str, Any]:
    record = session.record
    return {
        "number": session.number,
        "started": session.started,
        "last_seen": session.last_seen,
        "begins": None if session.begins is None else vars(session.begins),
        "ends": vars(session.ends),
        "ended": session.ended,
        "command": None if record is None else shlex.join(record.command),
        "commit": None if record is None else record.commit,
        "host": None if record is None else record.host,
        "changes": [] if record is None else list(record.changes),
        "confirmed_batches": None if record is None else record.confirmed_batches,
        "first_difference": None if record is None else record.first_difference,
    }


def _unreadable(found: Found) -> list[dict[str, str]]:
    return [{"path": lost.path, "problem": lost.problem} for lost in found.unreadable]
