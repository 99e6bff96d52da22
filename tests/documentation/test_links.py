"""Links between the repository's own texts lead somewhere, also to headings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documentation.pages import DOCS, PAGES, ROOT

TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + [DOCS / page for page in PAGES]
_LINK = re.compile(r"\]\((?P<path>[^)\s#]*)(?:#(?P<anchor>[^)\s]*))?\)")


def anchors_of(path: Path) -> set[str]:
    """The anchors of a text's headings, as code hosts and mkdocs make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", it)).strip().lower().replace(" ", "-") for it in headings}


def broken(path: Path) -> list[str]:
    """The links of a text that lead nowhere."""
    found = []
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in _LINK.finditer(text):
        if "://" in link["path"]:
            continue
        target = (path.parent / link["path"]).resolve() if link["path"] else path
        if not target.exists() or (link["anchor"] and link["anchor"] not in anchors_of(target)):
            found.append(link[0])
    return found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings_that_exist(path):
    assert broken(path) == []


def test_link_to_heading_that_is_gone_is_found(tmp_path):
    (tmp_path / "a.md").write_text("# A `name`\n\n[b](b.md) [c](#a-name) [d](#gone) [e](https://example.org/x)\n")
    assert broken(tmp_path / "a.md") == ["](b.md)", "](#gone)"]
