"""Reports in a headless Chromium: nothing is loaded, nothing overflows, all text can be read, in both themes.

Run with ``-m browser``. It needs playwright (the extra ``browser``), and a Chromium (``apt-get install chromium``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from catalog.conftest import flip_a_bit
from catalog.report.stories import Story, with_kills_and_branches

from checkpointable.catalog.report import write_report

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
LEAST_CONTRAST = 4.5  # of text, WCAG 2.2 AA
LONG = "validation/" + "a_metric_name_that_nobody_would_type_twice/" * 3 + "loss"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not os.path.exists(CHROMIUM), reason=f"there is no Chromium at {CHROMIUM}"),
]

OVERFLOWS = """() => {
    const root = document.scrollingElement
    return root.scrollWidth > innerWidth ? [`${root.scrollWidth} of ${innerWidth}`] : []
}"""

# Elements that are cut off, or reach out of what holds them, other than in a region that scrolls
OUTSIDE = """() => [...document.body.querySelectorAll('*')].filter(it => {
    if (it.closest('.wide, svg, details:not([open])')) return false
    const box = it.getBoundingClientRect()
    return box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5)
}).map(it => `${it.tagName} ${it.className}`)"""

# The contrast of each text with what lies behind it, after WCAG 2.2 (relative luminance)
CONTRASTS = """() => {
    const parse = text => (text.match(/[\\d.]+/g) || []).map(Number)
    const channel = value => {
        value /= 255
        return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
    }
    const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b)
    const behind = it => {
        for (; it; it = it.parentElement) {
            const colour = parse(getComputedStyle(it).backgroundColor)
            if (colour.length === 3 || colour[3] > 0) return colour
        }
        return [255, 255, 255]
    }
    const found = []
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (walker.nextNode()) {
        const it = walker.currentNode.parentElement
        if (!walker.currentNode.data.trim() || it.closest('style, title')) continue
        const style = getComputedStyle(it)
        const [a, b] = [luminance(parse(it.closest('svg') ? style.fill : style.color)), luminance(behind(it))]
        found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), walker.currentNode.data])
    }
    return found
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``run.html`` has one run with a damaged file, ``runs.html`` several odd ones."""
    root = tmp_path_factory.mktemp("reports")
    story = with_kills_and_branches(root / "one" / "version_0" / "checkpoints")
    flip_a_bit(str(story.files[60].path))
    (story.folder / "torn.ckpt").write_bytes(b"PK")
    write_report(root / "one", root / "run.html")
    many = root / "many"
    with_kills_and_branches(many / "lr_0.001" / "checkpoints", run_id="first")
    odd = {3: math.nan, 4: math.nan, 6: math.inf}
    long = Story(
        many / ("long_name_" * 20) / "checkpoints", "second", LONG, value=lambda epoch: odd.get(epoch, 900 - epoch)
    )
    long.session(9, command=("train.py", "--config", "/home/someone/" + "deep/" * 60 + "config.yaml"), host="h" * 200)
    Story(many / "old" / "checkpoints", "third", has_history=False).session(12)
    Story(many / "none" / "checkpoints", "fourth", value=lambda epoch: math.nan, has_history=False).session(2)
    (many / f"{'torn' * 50}.ckpt").write_bytes(b"PK")
    write_report(many, root / "runs.html")
    return root


def problems_of(browser: Any, page_path: Path, *, scheme: str, width: int, opened: bool) -> list[str]:
    """What is wrong with a page as a browser shows it."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    found: list[str] = []
    page.on("console", lambda message: found.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.route(
        "**/*",
        lambda route: (
            route.continue_()
            if route.request.url == page_path.as_uri()
            else found.append(f"request: {route.request.url}") or route.abort()
        ),
    )
    page.goto(page_path.as_uri())
    if opened:
        page.evaluate("() => document.querySelectorAll('details').forEach(it => it.open = true)")
    found += [f"overflow: {it}" for it in page.evaluate(OVERFLOWS)]
    found += [f"outside: {it}" for it in page.evaluate(OUTSIDE)]
    found += [f"contrast {ratio:.2f}: {text}" for ratio, text in page.evaluate(CONTRASTS) if ratio < LEAST_CONTRAST]
    context.close()
    return found


@pytest.mark.parametrize("opened", [False, True], ids=["folded", "opened"])
@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run.html", "runs.html"])
def test_report_in_a_browser_loads_nothing_and_all_of_it_can_be_read(
    browser: Any, pages: Path, name: str, scheme: str, width: int, opened: bool
) -> None:
    assert problems_of(browser, pages / name, scheme=scheme, width=width, opened=opened) == []


def test_page_that_loads_overflows_or_is_pale_is_found(browser: Any, pages: Path) -> None:
    """The twin: each of these, added to a report, is found."""
    source = (pages / "run.html").read_text()
    additions = {
        "request": "<img src='picture.png'>",
        "console": "<script>1</script>",
        "overflow": "<div style='width:3000px'>wide</div>",
        "contrast": "<p style='color:#777;background:#888'>pale</p>",
    }
    for kind, addition in additions.items():
        changed = pages / f"{kind}.html"
        policy = source.replace("Content-Security-Policy", "nothing") if kind == "request" else source
        changed.write_text(policy.replace("</main>", f"{addition}</main>"))
        found = problems_of(browser, changed, scheme="light", width=400, opened=False)
        assert any(it.startswith(kind) for it in found), (kind, found)


def test_themes_of_a_report_differ(browser: Any, pages: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto((pages / "run.html").as_uri())
        grounds.append(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
        context.close()
    assert len(set(grounds)) == 2


def test_points_of_the_curve_have_tooltips_and_the_best_a_ring(browser: Any, pages: Path) -> None:
    page = browser.new_page()
    page.goto((pages / "run.html").as_uri())
    rings = page.locator(".canvas g.best")
    assert rings.count() == 2
    assert "the best" in rings.first.locator("title").text_content()
    assert rings.first.bounding_box()["width"] < 30
    page.close()
