"""Builds HTML from small parts. All text is escaped unless it is HTML already."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_VOID = {"meta", "br", "col"}
_NOT_SHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # a page may not hold these
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Html(str):
    """Text that is HTML already, so that it is not escaped again."""

    __slots__ = ()


def text(value: str) -> Html:
    """A text as HTML. Bytes of a path that are no text are shown as escapes."""
    if isinstance(value, Html):
        return value
    shown = _NOT_SHOWN.sub(_REPLACEMENT, value).encode("utf-8", "backslashreplace").decode()
    return Html(html.escape(shown))


def element(tag: str, *content: str | None, **attributes: str | float | bool | None) -> Html:
    """One element with its content.

    Args:
        tag: Its name.
        content: Texts, which are escaped, and elements; ``None`` is left out.
        attributes: ``class_`` becomes ``class``, ``view_box`` becomes ``view-box``. ``None`` and ``False`` are left
            out, ``True`` has no value.
    """
    given = "".join(_attribute(name, value) for name, value in attributes.items())
    start = f"<{tag}{given}>"
    return Html(start if tag in _VOID else f"{start}{joined(content)}</{tag}>")


def joined(parts: Iterable[str | None], between: str = "") -> Html:
    """Parts one after the other; texts are escaped, ``None`` is left out."""
    return Html(text(between).join(text(part) for part in parts if part is not None))


def _attribute(name: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    shown = name.rstrip("_").replace("_", "-")
    return f" {shown}" if value is True else f' {shown}="{text(str(value))}"'
