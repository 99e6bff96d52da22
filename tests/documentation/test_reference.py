"""The reference names everything that is public, as it is."""

from __future__ import annotations

import ast
import inspect
import re

from documentation.pages import PAGES, ROOT, text_of

import checkpointable
from checkpointable import CheckpointingModule
from checkpointable.policy.options import Options

TABLE = re.compile(r"^\| `(?P<name>\w+)` \| `(?P<default>[^`]+)` \|", re.M)


def test_tables_of_arguments_have_each_with_its_default():
    found = {row["name"]: ast.literal_eval(row["default"]) for row in TABLE.finditer(text_of("reference/arguments.md"))}
    expected = {it.name: it.default for it in Options.__dataclass_fields__.values()}
    expected["learning_rate"] = inspect.signature(CheckpointingModule.__init__).parameters["learning_rate"].default
    assert found == expected


def test_api_page_documents_every_public_name():
    documented = re.findall(r"^::: checkpointable\.(?:[\w.]+\.)?(\w+)$", text_of("reference/api.md"), re.M)
    assert sorted(documented) == sorted(name for name in checkpointable.__all__ if name != "__version__")


def test_navigation_has_every_page_once():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert sorted(re.findall(r": ([\w/]+\.md)$", text, re.M)) == PAGES


def test_files_that_pages_name_exist():
    named = {path for page in PAGES for path in re.findall(r"`((?:tests|examples|benchmarks)/[\w/.]*)`", text_of(page))}
    assert len(named) > 20
    assert {path for path in named if not (ROOT / path).exists()} == set()
