"""Every Python block of the documentation runs. The blocks of a page share a namespace, and its own directory."""

from __future__ import annotations

import ast
import importlib.util
import logging
import warnings
from typing import Any

import pytest
import torch
from documentation.pages import PAGES, Block, blocks_of, text_of

from checkpointable import CheckpointableWarning
from checkpointable.saving import auto_resume

TUTORIAL = "tutorial.md"
SHORTER = {TUTORIAL: ("max_epochs=20", "max_epochs=2")}  # so that it takes a second
NOT_RUN = {  # blocks that are never run, by page; the page says why
    "how_to/remote.md": 1,
    "how_to/several_gpus.md": 1,
    "how_to/shards.md": 1,
    "how_to/tools.md": 2,
}
NEED_A_PACKAGE = {  # blocks that run where a package is installed that the tests do not need, by page
    "how_to/own_module.md": 1,
    "how_to/weights.md": 1,
}
WITH_CODE = [page for page in PAGES if blocks_of(text_of(page))]


def run(block: Block, page: str, namespace: dict[str, Any], *, without: int = 0) -> None:
    """Run it, but for so many of its last statements. A traceback shows the line of the page."""
    code = block.code.replace(*SHORTER[page]) if page in SHORTER else block.code
    tree = ast.parse("\n" * (block.line - 1) + code, filename=page)
    tree.body = tree.body[: len(tree.body) - without]
    exec(compile(tree, page, "exec"), namespace)


def is_installed(package: str | None) -> bool:
    return package is None or importlib.util.find_spec(package) is not None


@pytest.fixture(scope="module")
def of_tutorial():
    """What the tutorial's script defines, without its training."""
    namespace: dict[str, Any] = {"__name__": "docs"}
    run(blocks_of(text_of(TUTORIAL))[0], TUTORIAL, namespace, without=3)
    return namespace


@pytest.fixture(autouse=True)
def _on_one_thread_and_quiet():
    threads, logger = torch.get_num_threads(), logging.getLogger("lightning.pytorch")
    level = logger.level
    torch.set_num_threads(1)
    logger.setLevel(logging.ERROR)
    yield
    torch.set_num_threads(threads)
    logger.setLevel(level)


@pytest.mark.parametrize("page", WITH_CODE)
def test_blocks_of_page_run_in_order(page, tmp_path, monkeypatch, of_tutorial):
    monkeypatch.chdir(tmp_path)
    for shown in ("PROGRESS_BAR", "MODEL_SUMMARY"):
        monkeypatch.setenv(f"PL_TRAINER_ENABLE_{shown}", "False")
    namespace = {"__name__": "docs"} if page == TUTORIAL else dict(of_tutorial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", CheckpointableWarning)
        for block in blocks_of(text_of(page)):
            if block.why_not_run is None and is_installed(block.needs):
                auto_resume._LOOKED.clear()  # a reader runs each block in a process of its own
                run(block, page, namespace)


def test_blocks_that_do_not_run_are_those_listed_here():
    counted: dict[str, dict[str, int]] = {"not run": {}, "needs": {}}
    for page in WITH_CODE:
        blocks = blocks_of(text_of(page))
        for kind, count in (
            ("not run", sum(block.why_not_run is not None for block in blocks)),
            ("needs", sum(block.needs is not None for block in blocks)),
        ):
            if count:
                counted[kind][page] = count
    assert counted == {"not run": NOT_RUN, "needs": NEED_A_PACKAGE}


def test_block_that_raises_fails_with_line_of_page(of_tutorial):
    text = "# A page\n\n```python\nfit = LitDigits\nfit(save_intervall=2)\n```\n"
    with pytest.raises(TypeError, match="Did you mean 'save_interval'") as raised:
        run(blocks_of(text)[0], "page.md", dict(of_tutorial))
    assert [entry.lineno + 1 for entry in raised.traceback if str(entry.path).endswith("page.md")] == [5]


def test_marks_before_blocks_are_read():
    text = (
        "<!-- needs hydra -->\n```python\na = 1\n```\n\n"
        "<!-- not run: it needs four GPUs -->\n\n```python\nb = 1\n```\n\n"
        "- item\n\n    ```python\n    c = 1\n    ```\n\n```bash\nls\n```\n"
    )
    found = [(block.code, block.needs, block.why_not_run) for block in blocks_of(text)]
    assert found == [("a = 1\n", "hydra", None), ("b = 1\n", None, "it needs four GPUs"), ("c = 1\n", None, None)]
