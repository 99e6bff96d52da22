"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
_BLOCK = re.compile(
    r"(?:^[ ]*<!-- (?P<mark>needs|not run:) (?P<text>[^>]+) -->\n+)?"
    r"^(?P<indent>[ ]*)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$",
    re.M | re.S,
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of code.

    Attributes:
        line: Of the page, at which its code begins.
        language: As the page says.
        needs: The package without which it cannot run, if it says so.
        why_not_run: Why it is never run, if it says so.
    """

    code: str
    line: int
    language: str
    needs: str | None
    why_not_run: str | None


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks_of(text: str, language: str = "python") -> list[Block]:
    """The blocks of a language in a page, in their order."""
    found = []
    for match in _BLOCK.finditer(text):
        if match["language"] == language:
            code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.M)
            line = text.count("\n", 0, match.start("code")) + 1
            needs = match["text"] if match["mark"] == "needs" else None
            why_not = match["text"] if match["mark"] == "not run:" else None
            found.append(Block(code=code, line=line, language=language, needs=needs, why_not_run=why_not))
    return found
