"""What saving has cost: how long training waited, how long the writing took, how much was written."""

from __future__ import annotations

from collections.abc import Sequence

from checkpointable.catalog import words
from checkpointable.catalog.info import size_in_words
from checkpointable.catalog.report.attempts import Attempt
from checkpointable.catalog.report.markup import Html, element, joined
from checkpointable.catalog.report.run import Run
from checkpointable.policy.history import SavedPoint

_HEADER = ("Kind", "Saves", "Training waited, median", "longest", "Written within, median", "longest", "Size, median")


def saves_of(run: Run) -> list[SavedPoint]:
    """All saves that any history of a run lists, each once, in the order in which they were made."""
    saves = {(it.name, it.created): it for _, history in run.histories for it in history.saves}
    return sorted(saves.values(), key=lambda it: it.created)


def lists_a_part(run: Run) -> bool:
    """Whether saves have been thinned out of a history, so that the listed ones are not all."""
    return any(history.saves_left_out for _, history in run.histories)


def share_of_training(run: Run, saves: Sequence[SavedPoint], attempts: Sequence[Attempt]) -> float | None:
    """Which part of the time of all sessions, up to their last saves, training waited; ``None`` if it is not known."""
    if lists_a_part(run):
        return None
    records = [it.record for it in attempts if it.record is not None]
    seconds = sum(max(0.0, record.last_seen - record.started) for record in records)
    return sum(it.blocked_seconds for it in saves) / seconds if seconds > 0 and saves else None


def cost_section(run: Run, attempts: Sequence[Attempt]) -> Html:
    """A sentence and a table; a sentence alone if no history lists saves."""
    saves = saves_of(run)
    if not saves:
        return element("p", "No file has a history that lists saves.", class_="muted")
    share = share_of_training(run, saves, attempts)
    waited = words.duration(sum(it.blocked_seconds for it in saves))
    of_all = "" if share is None else f", {words.share(share)} of the time of all sessions"
    written = size_in_words(sum(it.size_bytes or 0 for it in saves))
    told = (
        f"Training waited {waited} in all for {words.counted(len(saves), 'save')}{of_all}. They wrote {written}."
        f"{' There were more: the history of so long a run lists a part of the saves.' if lists_a_part(run) else ''}"
    )
    kinds = {kind: [it for it in saves if it.kind == kind] for kind in dict.fromkeys(it.kind for it in saves)}
    rows = [_row(kind, group) for kind, group in kinds.items()]
    if len(kinds) > 1:
        rows.append(_row("all", saves))
    first, *others = _HEADER
    columns = [element("th", name, scope="col", class_="number") for name in others]
    head = element("tr", element("th", first, scope="col"), *columns)
    table = element("table", element("thead", head), element("tbody", *rows))
    region = element("div", table, class_="wide", role="region", tabindex=0, aria_label="Cost of saving")
    return joined([element("p", told), region])


def _row(kind: str, saves: Sequence[SavedPoint]) -> Html:
    blocked = [it.blocked_seconds for it in saves]
    written = [it.write_seconds for it in saves]
    sizes = [it.size_bytes for it in saves if it.size_bytes is not None]
    cells = [
        f"{len(saves):,}",
        words.duration(words.median(blocked)),
        words.duration(max(blocked)),
        words.duration(words.median(written)),
        words.duration(max(written)),
        size_in_words(round(words.median(sizes))) if sizes else words.UNKNOWN,
    ]
    return element("tr", element("th", kind, scope="row"), *(element("td", cell, class_="number") for cell in cells))
