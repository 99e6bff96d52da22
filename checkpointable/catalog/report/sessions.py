"""The sessions of a run as a list: the tree of attempts, how each ended, how it resumed, and what it changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from checkpointable.catalog import words
from checkpointable.catalog.report.attempts import Attempt, Fate
from checkpointable.catalog.report.changes import changes_between, command_of, commit_of
from checkpointable.catalog.report.chart import batches_scale
from checkpointable.catalog.report.marks import kill_mark, mark_at
from checkpointable.catalog.report.markup import Html, element, joined
from checkpointable.catalog.report.scale import Scale
from checkpointable.policy.history import SessionRecord

_FATES: dict[Fate, tuple[str, str]] = {  # in words, and how they are shown
    "finished": ("finished", "good"),
    "stopped": ("stopped", "warn"),
    "failed": ("failed", "bad"),
    "killed": ("killed", "bad"),
    "open": ("running at its last save", "neutral"),
    "unknown": ("end not recorded", "neutral"),
}
_RESUMES = {"confirmed": "good", "differs": "bad", "not confirmed": "neutral"}
_MOST_DEPTH = 6  # of the indentation


def sessions_section(attempts: Sequence[Attempt]) -> Html:
    """The list, in the order of the tree."""
    along = batches_scale(attempts)
    note = "The bars show which batches of the run each session trained, pale where they were left."
    if any(it.depth for it in attempts):
        note += " A session that is further in belongs to a branch that was left."
    items = [element("li", *_session(it, along), style=_indented(it)) for it in attempts]
    return joined([element("p", note, class_="muted"), element("ol", *items, class_="sessions")])


def counts(attempts: Sequence[Attempt]) -> tuple[int, list[Attempt], int]:
    """How many were killed, which have resumed, and how many of these are confirmed."""
    resumed = [it for it in attempts if it.resume is not None]
    confirmed = sum(it.resume == "confirmed" for it in resumed)
    return sum(it.fate == "killed" for it in attempts), resumed, confirmed


def badge(label: str, kind: str) -> Html:
    """A word in a frame."""
    return element("span", label, class_=f"badge {kind}")


def _indented(attempt: Attempt) -> str | None:
    return f"--depth:{min(attempt.depth, _MOST_DEPTH)}" if attempt.depth else None


def _session(attempt: Attempt, along: Scale) -> Iterator[Html]:
    label, kind = _FATES[attempt.fate]
    badges = [badge(label, kind)]
    if attempt.resume is not None:
        badges.append(badge(f"resume {attempt.resume}", _RESUMES[attempt.resume]))
    if not attempt.is_on_the_line:
        badges.append(badge("branch left", "neutral"))
    yield element("h4", f"Session {attempt.number}", " ", joined(badges, between=" "))
    yield _bar(attempt, along)
    yield element("p", _when_and_where(attempt))
    if attempt.is_further:
        yield element("p", f"A further fit in the process of session {attempt.number - 1}.")
    yield from _resumed(attempt)
    if attempt.record is None:
        return
    if attempt.fate in ("killed", "failed", "stopped"):
        yield element("p", _end(attempt.record, attempt.fate))
    changes = changes_between(_known_before(attempt), attempt.record) if attempt.parent is not None else []
    if changes:
        yield element("ul", *(element("li", change) for change in changes), class_="changes")
    yield element("details", element("summary", "Command, commit, host"), _details(attempt, attempt.record))


def _known_before(attempt: Attempt) -> SessionRecord | None:
    older = attempt.parent
    while older is not None and older.record is None:
        older = older.parent
    return None if older is None else older.record


def _when_and_where(attempt: Attempt) -> str:
    if attempt.record is None:
        created = [info.created for info in attempt.infos]
        saved = f", saved from {words.moment(min(created))} to {words.moment(max(created))}" if created else ""
        return f"Batch {attempt.begins:,} to {attempt.ends:,}{saved}. No history of it was saved."
    record = attempt.record
    took = words.duration(record.last_seen - record.started)
    return (
        f"From {words.moment(record.started)} ({words.place(record.begins)}) to its last save {took} later"
        f" ({words.place(record.ends)})."
    )


def _resumed(attempt: Attempt) -> Iterator[Html]:
    source = _source(attempt)
    if attempt.resume is None or source is None:
        return
    batches, difference = attempt.compared
    same = words.counted(batches or 0, "batch", "batches")
    if attempt.resume == "differs":
        compared = (
            f"Batch {difference:,} of the run gave another result than before the kill;"
            f" {same} before it gave the same, bit for bit."
        )
    elif attempt.resume == "confirmed":
        compared = f"{same} that {'was' if batches == 1 else 'were'} trained again gave the same, bit for bit."
    else:
        compared = "No batches were trained again, so there was nothing to compare."
    yield element("p", "Resumed from ", element("code", source), f". {compared}", class_="resumed")
    told = _exactness(attempt)
    if told is not None:
        yield element("p", f"The resume was {told}.")


def _exactness(attempt: Attempt) -> str | None:
    if attempt.record is not None:
        return attempt.record.exactness
    return None


def _source(attempt: Attempt) -> str | None:
    told = [info.resumed_from for info in reversed(attempt.infos)]
    path = attempt.record.resumed_from if attempt.record is not None else next(iter(told), None)
    if path is None:
        return None if attempt.parent is None else f"session {attempt.parent.number}"
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return f"{name} (session {attempt.parent.number})" if attempt.parent is not None else name


def _end(record: SessionRecord, fate: Fate) -> Html:
    if fate == "killed":
        return joined(["It did not say how it ended: it was killed, or could not save."])
    return joined(["Ended by ", element("code", record.ended or ""), "."])


def _details(attempt: Attempt, record: SessionRecord) -> Html:
    facts = {
        "Command": command_of(record),
        "Git commit": commit_of(record),
        "Host": record.host,
        "Attempt": attempt.name,
        "Resumed from": record.resumed_from,
    }
    rows = [part for name, value in facts.items() if value for part in (element("dt", name), element("dd", value))]
    return element("dl", *rows)


def _bar(attempt: Attempt, along: Scale) -> Html:
    """The batches that a session trained; paler where the run has left it."""
    until = (
        attempt.begins if not attempt.is_on_the_line else attempt.ends if attempt.left_at is None else attempt.left_at
    )
    parts = [element("rect", x=0, width="100%", y=3, height=6, rx=3, class_="rail")]
    for start, end, kind in (
        (attempt.begins, until, "session"),
        (max(until, attempt.begins), attempt.ends, "session left"),
    ):
        if end > start or (kind == "session" and attempt.ends == attempt.begins):
            width = f"{100 * max(along.at(end) - along.at(start), 0.004):.2f}%"
            parts.append(element("rect", x=along.percent(start), width=width, y=1, height=10, rx=2, class_=kind))
    if attempt.fate == "killed":
        parts.append(mark_at(along.percent(attempt.ends), 6, kill_mark(None)))
    return element("svg", *parts, class_="bar", height=12, aria_hidden="true")
