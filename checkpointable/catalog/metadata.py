"""What the metadata of a checkpoint has to hold, for its readers to work with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

_Check = Callable[[Any], bool]


def wrong_fields(metadata: Mapping[str, Any]) -> str | None:
    """Which fields are not there, or hold what they cannot, with what they hold; ``None`` if all is well."""
    missing = [repr(name) for name in REQUIRED if name not in metadata]
    if missing:
        return f"has metadata without {', '.join(missing)}"
    score = metadata.get("score")
    judged = score if isinstance(score, dict) else {}
    checked = [
        *((name, metadata[name], check) for name, check in REQUIRED.items()),
        *((name, metadata[name], check) for name, check in _OPTIONAL.items() if name in metadata),
        *((f"score.{name}", judged.get(name), check) for name, check in _SCORE.items() if score is not None),
    ]
    wrong = [f"{name} is {value!r:.60}" for name, value, is_fine in checked if not is_fine(value)]
    return f"has metadata of a wrong type: {', '.join(wrong)}" if wrong else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text_or_none(value: Any) -> bool:
    return value is None or _is_text(value)


def _is_line(value: Any) -> bool:
    fits = value if isinstance(value, list) else []
    return fits != [] and all(
        isinstance(fit, list) and len(fit) == 2 and _is_text(fit[0]) and _is_count(fit[1]) for fit in fits
    )


REQUIRED: dict[str, _Check] = {
    "kind": _is_text,
    "reasons": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    **dict.fromkeys(("epoch", "batch", "step", "batches", "generation"), _is_count),
    "metrics": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    "created": lambda value: _is_number(value) and math.isfinite(value),
    "run_id": _is_text,
    "resumed_from": _is_text_or_none,
    "exactness": _is_text_or_none,
    "weights_only": lambda value: isinstance(value, bool),
}
_OPTIONAL: dict[str, _Check] = {"line": _is_line, "stem": _is_text_or_none}
_SCORE: dict[str, _Check] = {"monitor": _is_text, "mode": _is_text, "value": _is_number}
