"""The answer of a command as JSON, which every program reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

FORMAT = 1


def encoded(answer: Mapping[str, Any], *, indent: int | None = None) -> str:
    """An answer as JSON, on one line unless it is indented.

    JSON knows no numbers that are not finite: they are the strings ``"nan"``, ``"inf"`` and ``"-inf"``.
    """
    return json.dumps(_plain(answer), ensure_ascii=False, allow_nan=False, indent=indent)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # a file's name may be no text
    return value
