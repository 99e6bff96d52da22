"""The marks of a picture: small shapes of one size at a place that can be given in percent."""

from __future__ import annotations

from checkpointable.catalog.report.markup import Html, element


def mark_at(across: str, down: float, *shapes: Html) -> Html:
    """Shapes around (0, 0), moved to a place."""
    return element("svg", *shapes, x=across, y=down, class_="mark")


def file_mark(kind: str, title: Html | None, across: str, down: float) -> Html:
    """The mark of a kept file: a ring around the best, a cross for a damaged one, else a dot of a class ``kind``."""
    if kind == "damaged":
        cross = element("path", d="M-4-4 4 4M-4 4 4-4")
        return mark_at(across, down, element("g", title, _target(), cross, class_="damaged"))
    if kind == "best":
        ring, dot = element("circle", r=7, class_="ring"), element("circle", r=3.5, class_="file")
        return mark_at(across, down, element("g", title, _target(), ring, dot, class_="best"))
    return element("circle", title, cx=across, cy=down, r=3.5, class_=kind)


def kill_mark(title: Html | None) -> Html:
    """The mark of a session that was killed."""
    return element("path", title, d="M0-7 5.5 0 0 7-5.5 0Z", class_="kill")


def _target() -> Html:
    """What a pointer can hit between the lines."""
    return element("circle", r=8, class_="target")
