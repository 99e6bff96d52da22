"""The pages of errors and warnings have every message of the source, and no message that is gone."""

from __future__ import annotations

import re

import pytest
from documentation.messages import GAP, of_errors, of_said
from documentation.pages import text_of

FEWEST = 7  # letters of a piece that tells a message from others
HANDED_ON = {  # files with a message that has no such piece, and where its text is made
    "catalog/select.py": "storage/paths.py, and notes of the same file",
    "catalog/curves.py": "_nothing_to_plot",
    "lightning_internals/checkpoint_io.py": "_cannot_load",
    "saving/callback.py": "what promotion.py found",
    "saving/due.py": "policy/auto_interval.py",
    "saving/failures.py": "say_where_to_resume",
    "saving/last_state.py": "what promotion.py found",
    "saving/new_run.py": "announce",
    "saving/promotion.py": "an error of the store",
    "saving/saver.py": "messages of the save",
    "saving/shards.py": "who calls _raise_first",
    "storage/format/placeholder.py": "not_loaded",
    "storage/remote.py": "what the store said",
}
MADE_ELSEWHERE = [  # pieces of rows whose text is made in such a way
    "cannot … (…): …",
    "Resume from … (…).",
    "could not be copied to",
    "bytes free, and up to",
    "does not load it by default",
    "the parameters were changed between two optimizer steps",
    "cannot plot: no checkpoint has",
    "Resume from another file",
    "this is a placeholder for a value made by",
    "cannot take the sums over its shard for",
    "saving every",
    "passed over, as nothing shows",
    "the best checkpoint is chosen by",
    "What is there is not compared",
    "new run, although there are checkpoints in",
    "new run: no checkpoint in",
]


def pieces_of(message: str) -> list[str]:
    """What is always the same in a message."""
    return [" ".join(piece.split()) for piece in message.split(GAP) if piece.strip(" .\n")]


def is_of(shown: str, message: str) -> bool:
    """Whether a page's row shows a message: each piece of the row is in it, one after the other."""
    text, at = " ".join(message.split()), 0
    for piece in pieces_of(shown):
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def rows_of(page: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)`", text_of(page), re.M)


def tells(message: str) -> bool:
    return max(map(len, pieces_of(message.removeprefix("checkpointable: "))), default=0) >= FEWEST


def telling(messages: dict[str, str]) -> dict[str, str]:
    """Those that have a piece by which they can be found."""
    return {place: message for place, message in messages.items() if tells(message)}


def undocumented(messages: dict[str, str], rows: list[str]) -> list[str]:
    rows = [row for row in rows if tells(row)]
    return [
        f"{place}: {message}" for place, message in messages.items() if not any(is_of(row, message) for row in rows)
    ]


def test_every_error_is_on_the_page_of_errors():
    assert undocumented(telling(of_errors()), rows_of("reference/errors.md")) == []


def test_every_warning_and_line_is_on_the_page_of_warnings():
    assert undocumented(telling(of_said()), rows_of("reference/warnings.md")) == []


def test_messages_that_are_handed_on_are_those_listed_here():
    messages = {**of_errors(), **of_said()}
    found = {place.partition(":")[0] for place in messages.keys() - telling(messages).keys()}
    assert found == HANDED_ON.keys()


@pytest.mark.parametrize("page", ["reference/errors.md", "reference/warnings.md"])
def test_no_row_shows_a_message_that_is_gone(page):
    reasons = text_of(page).partition("## Built-in exceptions")[2]  # built-in ones, and what verify says
    messages = [*of_errors().values(), *of_said().values()]
    rows = [row for row in rows_of(page) if f"| `{row}`" not in reasons]
    gone = [row for row in rows if not any(is_of(row, message) for message in messages)]
    assert [row for row in gone if not any(text in row for text in MADE_ELSEWHERE)] == []


@pytest.mark.parametrize("message", ["cannot open …: the lid is shut. Open it.", "the lid of … is shut"])
def test_message_that_no_row_shows_is_found(message):
    assert undocumented({"a.py:1": message}, rows_of("reference/errors.md")) == [f"a.py:1: {message}"]
