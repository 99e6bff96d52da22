"""What changed from one session to the next: the command, the commit, the machine, and what the script trains."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator, Sequence

from checkpointable.catalog.report.markup import Html, element, joined
from checkpointable.policy.history import SessionRecord

_COMMIT_LENGTH = 10


def changes_between(before: SessionRecord | None, after: SessionRecord) -> list[Html]:
    """Each change as one line; none if nothing is known to have changed."""
    return [*([] if before is None else _of_surroundings(before, after)), *map(_of_script, after.changes)]


def _of_surroundings(before: SessionRecord, after: SessionRecord) -> Iterator[Html]:
    if before.command != after.command:
        yield joined(["command: ", element("code", _difference(before.command, after.command))])
    if (before.commit, before.is_dirty) != (after.commit, after.is_dirty):
        yield joined(["git commit: ", _commit(before), " → ", _commit(after)])
    if before.host != after.host:
        yield joined(["host: ", element("code", before.host), " → ", element("code", after.host)])


def _of_script(change: str) -> Html:
    return joined(["script: ", change])


def _commit(record: SessionRecord) -> Html:
    return element("code", commit_of(record))


def commit_of(record: SessionRecord) -> str:
    """The commit of the script, shortened, and whether it had other changes."""
    if record.commit is None:
        return "none"
    return record.commit[:_COMMIT_LENGTH] + (" + uncommitted changes" if record.is_dirty else "")


def command_of(record: SessionRecord) -> str:
    """The command line, as a shell takes it."""
    return shlex.join(record.command)


def _difference(before: Sequence[str], after: Sequence[str]) -> Html:
    """Both command lines as one, word by word."""
    old, new = ([shlex.quote(word) for word in words] for words in (before, after))
    parts: list[Html] = []
    for kind, old_from, old_to, new_from, new_to in difflib.SequenceMatcher(
        None, old, new, autojunk=False
    ).get_opcodes():
        if kind == "equal":
            parts.append(joined([" ".join(old[old_from:old_to])]))
            continue
        if old_to > old_from:
            parts.append(element("del", " ".join(old[old_from:old_to])))
        if new_to > new_from:
            parts.append(element("ins", " ".join(new[new_from:new_to])))
    return joined(parts, between=" ")
