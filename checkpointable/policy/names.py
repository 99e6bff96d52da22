"""The names of checkpoint files: templates with the position and logged metrics as fields."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Mapping
from string import Formatter

from checkpointable._errors import PolicyError

SUFFIX = ".ckpt"
KEY = "checkpointable"  # of what is ours in a checkpoint
HISTORY_KEY = "history"  # under it: the history as text, which becomes a member of the file
TEMPORARY_PREFIX = ".checkpointable-"  # of files that are being written
MOST_BYTES = 240  # of a name, as file systems allow 255, and a version and the suffix follow
POSITION_FIELDS = ("epoch", "batch", "step")
LAST, BEST = "last", "best"
_RESERVED = re.compile(rf"({LAST}|{BEST})(-v\d+)?", re.IGNORECASE)  # some file systems ignore case


def problems(template: object, argument: str) -> list[str]:
    """What is wrong with a template, as far as can be checked before anything is logged."""
    allowed = f"allowed: a name with fields like {{epoch}}, {{batch:05d}}, {{val_loss:.3f}}, without {SUFFIX!r}"
    if not isinstance(template, str) or not template.strip():
        return [f"{argument}={template!r}: not a template; {allowed}"]
    try:
        fields = [field[1:] for field in Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        return [f"{argument}={template!r}: {error}; {allowed}"]
    found = [wrong for name, spec, _ in fields if (wrong := _wrong_spec(f"{argument}={template!r}", name, spec))]
    if any(not name or not name.strip() or name.isdigit() for name, _, _ in fields):
        found.append(f"{argument}={template!r}: a field without a name; {allowed}")
    if any(conversion for _, _, conversion in fields):
        found.append(f"{argument}={template!r}: conversions like '!r' are not allowed; {allowed}")
    if (taken := _reserved(template)) is not None:
        link, role = taken[0] + SUFFIX, taken[1].lower()
        found.append(f"{argument}={template!r}: {link} is the link to the {role} file; choose another name")
    if template.endswith(("/", SUFFIX)) or any(ord(character) < 32 for character in template):
        found.append(f"{argument}={template!r}: not a file name; {allowed}")
    if is_too_long("".join(text for text, _, _, _ in Formatter().parse(template))):
        found.append(
            f"{argument}={template!r}: longer than the {MOST_BYTES} bytes of a file name; choose a shorter one"
        )
    if template.startswith(("/", "~")) or ".." in template.split("/"):
        found.append(f"{argument}={template!r}: leads out of the directory; use dirpath to choose another")
    return found


def is_reserved(base_name: str) -> bool:
    """Whether a name without suffix, such as ``last-v1``, is reserved for a link to the newest or the best file."""
    return _reserved(base_name) is not None


def is_too_long(base_name: str) -> bool:
    """Whether a part of a path without suffix is longer than file systems allow."""
    return any(len(part.encode("utf-8", "surrogateescape")) > MOST_BYTES for part in base_name.split("/"))


def _reserved(base_name: str) -> re.Match[str] | None:
    """Match the last part of a path: such names are reserved in every directory."""
    return _RESERVED.fullmatch(posixpath.basename(posixpath.normpath(base_name)))


def _wrong_spec(shown: str, name: str | None, spec: str | None) -> str | None:
    example: float | int | str = 0 if name in POSITION_FIELDS else "name" if name == "monitor" else 0.0
    try:
        format(int(example) if isinstance(example, float) and (spec or "").endswith("d") else example, spec or "")
    except (ValueError, OverflowError, MemoryError) as error:
        return f"{shown}: {name} cannot be written as {spec!r}: {error}"
    return None


def unknown_fields(template: str, values: Collection[str]) -> list[str]:
    """Fields of a template that have no value."""
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None and name not in values]


def render(template: str, values: Mapping[str, int | float | str], *, insert_names: bool = False) -> str:
    """The file name without its suffix.

    A field without a value gives ``nan``. A ``/`` in a field's name or value becomes ``_``, so that a metric called
    ``val/loss`` makes no subdirectory. A reserved name gets a ``_`` at its end. With ``insert_names``, ``{epoch:02d}``
    becomes ``epoch=02`` (``auto_insert_metric_name``).

    Raises:
        PolicyError: If a format spec does not fit its value.
    """
    parts = []
    for literal, name, spec, _ in Formatter().parse(template):
        parts.append(literal)
        if name is None:
            continue
        text = _format(template, name, spec or "", values)
        text = "_" if text in (".", "..") else text
        if insert_names and name != "monitor":
            text = f"{name}={text}"
        parts.append(re.sub(r"[/\\\0]", "_", text))
    base_name = "".join(parts)
    return f"{base_name}_" if is_reserved(base_name) else base_name


def _format(template: str, name: str, spec: str, values: Mapping[str, int | float | str]) -> str:
    if name not in values:
        return "nan"
    value = values[name]
    if isinstance(value, float) and value.is_integer() and spec.endswith("d"):
        value = int(value)
    try:
        return format(value, spec)
    except ValueError as error:
        raise PolicyError(f"cannot name a checkpoint with {template!r}: {name} is {value!r}, and {error}.") from error


def versioned(base_name: str, version: int) -> str:
    """The file name of a version: ``a.ckpt``, ``a-v1.ckpt``, ``a-v2.ckpt`` ... as Lightning numbers names in use."""
    return f"{base_name}{SUFFIX}" if version == 0 else f"{base_name}-v{version}{SUFFIX}"


def is_version(path: str, base_name: str) -> bool:
    """Whether a path is that of a version of a name; the name is given with all folders that the path has."""
    given, named = (it.replace(os.sep, "/") for it in (path, base_name))
    return re.fullmatch(rf"{re.escape(named)}(-v\d+)?{re.escape(SUFFIX)}", given) is not None
