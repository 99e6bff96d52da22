"""Reads a page as a parser does, and finds what a report must not have."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "br", "col"}


@dataclass
class Page(HTMLParser):
    """A page that was parsed: its elements with their attributes, its texts, and what is wrong with it."""

    source: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()
        self.problems += [f"<{tag}> is not closed" for tag in self._open]
        twice = [name for name, count in Counter(self.attributes("id")).items() if count > 1]
        self.problems += [f"two elements have the id {name}" for name in twice]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All that is read."""
        return " ".join(" ".join(self.texts).split())

    def attributes(self, name: str) -> list[str]:
        """The values of one attribute."""
        return [value for _, given in self.elements if (value := given.get(name)) is not None]

    def classed(self, *names: str) -> list[str]:
        """The tags of the elements with these classes."""
        return [tag for tag, given in self.elements if set(names) <= set((given.get("class") or "").split())]

    def tags(self) -> Counter[str]:
        """How many elements of each kind there are."""
        return Counter(tag for tag, _ in self.elements)


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def reaching_out(source: str) -> list[str]:
    """What could make a browser load something, or run something."""
    return re.findall(r"https?://|\burl\(|@import|<script|<link|<img|<iframe|\son\w+=|javascript:", source)
