"""What ``mkdocs build`` does beside its own work: draws diagrams, links to the repository, and loads nothing from afar.

The pages are read in a repository, too. There a diagram is an image and a link to a source file is a path.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
_DIAGRAM = re.compile(r"^!\[(?P<text>[^\]]*)\]\((?P<path>[^)\s]+\.svg)\)$", re.M)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<path>(?:\.\./)+[^)\s]*)\)")
_LOADING = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\ssrc=[\"']?(?P<address>(?:https?:)?//[^\"'\s>]+)"
)
_LINKED = re.compile(
    r"<link\b(?=[^>]*\srel=[\"']?(?:stylesheet|preconnect|preload|icon|manifest))[^>]*?\shref=[\"']?(?P<address>(?:https?:)?//[^\"'\s>]+)"
)


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Put diagrams into the page, and turn links to files outside of the documentation."""
    folder = posixpath.dirname(page.file.src_uri)
    return with_repository_links(with_diagrams(markdown, folder), folder, config["extra"].get("repository", ""))


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings mark an example by two colons; readers see one."""
    return html.replace("::</p>", ":</p>")


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Refuse a page that would load something from elsewhere."""
    found = loaded_from_elsewhere(output)
    if found:
        from mkdocs.exceptions import PluginError

        raise PluginError(f"{page.file.src_uri} loads {', '.join(found)}. Put it below docs/, or leave it out.")
    return output


def with_diagrams(markdown: str, folder: str) -> str:
    """The text with each image of a line of its own that is an SVG drawn in the page, in the colours of the theme."""

    def draw(found: re.Match[str]) -> str:
        drawing = (DOCS / folder / found["path"]).read_text(encoding="utf-8")
        lines = [line for line in drawing.splitlines() if line.strip()]  # an empty one would end the block
        return "\n".join(['<figure class="diagram">', *lines, "</figure>"])

    return _DIAGRAM.sub(draw, markdown)


def with_repository_links(markdown: str, folder: str, repository: str) -> str:
    """The text with links that leave the documentation: to the repository, or plain text if it has no address."""

    def turn(found: re.Match[str]) -> str:
        path, _, anchor = found["path"].partition("#")
        place = posixpath.normpath(posixpath.join("docs", folder, path))
        if place == "docs" or place.startswith("docs/"):
            return found[0]
        if not repository:
            return found["text"]
        return f"[{found['text']}]({repository.rstrip('/')}/{place}{'#' * bool(anchor)}{anchor})"

    return _LINK.sub(turn, markdown)


def loaded_from_elsewhere(html: str) -> list[str]:
    """The addresses of other machines from which a browser would load something to show a page."""
    return sorted({found["address"] for pattern in (_LOADING, _LINKED) for found in pattern.finditer(html)})
