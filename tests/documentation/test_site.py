"""What is done to the pages when the site is built; the build itself is a step of the gate."""

from __future__ import annotations

import importlib.util

import pytest
from documentation.pages import DOCS, PAGES, text_of


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "_site" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_diagrams_are_drawn_in_the_page_without_an_empty_line(hooks):
    drawn = 0
    for page in PAGES:
        text = hooks.with_diagrams(text_of(page), page.rpartition("/")[0])
        assert ".svg)" not in text
        for figure in text.split('<figure class="diagram">')[1:]:
            assert "\n\n" not in figure.partition("</figure>")[0]
            drawn += 1
    assert drawn == len(list((DOCS / "diagrams").glob("*.svg")))


def test_links_to_the_repository_become_text_or_get_its_address(hooks):
    text = "[a](../../tests/nets.py) [b](../faq.md) [c](../../README.md#x)"
    assert hooks.with_repository_links(text, "how_to", "") == "a [b](../faq.md) c"
    expected = "[a](https://host/r/tests/nets.py) [b](../faq.md) [c](https://host/r/README.md#x)"
    assert hooks.with_repository_links(text, "how_to", "https://host/r") == expected


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<script src="https://cdn.example.org/a.js"></script>', ["https://cdn.example.org/a.js"]),
        ('<link rel="stylesheet" href="//fonts.example.org/b.css">', ["//fonts.example.org/b.css"]),
        ("<link href=https://fonts.example.org rel=preconnect>", ["https://fonts.example.org"]),
        ('<img alt="x" src="http://example.org/c.png">', ["http://example.org/c.png"]),
        ('<a href="https://example.org">a link is followed by people</a><script src="assets/a.js"></script>', []),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(hooks, html, found):
    assert hooks.loaded_from_elsewhere(html) == found
