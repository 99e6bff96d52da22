"""Takes secrets out of a command line, which is written into files that people share."""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "***"
_MOST = 1000  # characters of a word, and of a text: more are never shown, and the search takes their square
_NAME = r"[^\s=:,&?{}'\"]*(?:key|token|secret|passw|credential)[^\s=:,&?{}'\"]*"
_ASSIGNED = re.compile(rf"({_NAME}['\"]?\s*[=:]\s*)[^\s,&}}]+", re.IGNORECASE)  # inside an argument
_PASSED = re.compile(rf"({_NAME}=)[^\s,&}}]+", re.IGNORECASE)  # inside a text, where "key: " may be words
_OPTION = re.compile(rf"({_NAME}[=:]).*", re.IGNORECASE | re.DOTALL)  # all of an argument
_FLAG = re.compile(rf"-+{_NAME}", re.IGNORECASE)  # its value follows
_USER = re.compile(r"(://)[^/\s@]+@")  # a user and a password in a URL


def without_secrets(command: Iterable[str]) -> tuple[str, ...]:
    """A command line without the values of arguments whose name contains ``key``, ``token``, ``secret`` and the like.

    Of an argument without ``=``, all that follows is hidden up to the next one that begins with ``--``: it may take
    several values.
    """
    shown: list[str] = []
    is_secret = False
    for word in (word[:_MOST] for word in command):
        if is_secret and not word.startswith("--"):
            shown.append(HIDDEN)
            continue
        is_secret = _FLAG.fullmatch(word) is not None
        shown.append(_OPTION.sub(rf"\1{HIDDEN}", word) if _OPTION.fullmatch(word) else _hidden_in(word, _ASSIGNED))
    return tuple(shown)


def without_secrets_in(text: str) -> str:
    """A text, such as that of an exception, without what is assigned to such a name in it."""
    return _hidden_in(text[:_MOST], _PASSED)


def _hidden_in(text: str, assigned: re.Pattern[str]) -> str:
    return _USER.sub(rf"\1{HIDDEN}@", assigned.sub(rf"\1{HIDDEN}", text))
