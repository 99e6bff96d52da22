"""Policy stands on the standard library alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from checkpointable import policy

ROOM = Path(policy.__file__).parent
FILES = sorted(ROOM.glob("*.py"))
OURS = ("checkpointable.policy", "checkpointable._errors")


def foreign_imports(source: str) -> set[str]:
    """What a source imports beside the standard library, this room and the errors."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return {name for name in names if not _is_allowed(name)}


def _is_allowed(name: str) -> bool:
    ours = name in OURS or name.startswith("checkpointable.policy.")
    return ours or name.split(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_policy_file_imports_nothing_but_the_standard_library_and_its_own_room(file):
    assert foreign_imports(file.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "statement",
    [
        "import torch",
        "def f():\n    from torch import nn",
        "from lightning.pytorch import Trainer",
        "from checkpointable import latest",
        "from checkpointable.storage import commit",
        "from checkpointable.policyother import x",
        "from . import when",
    ],
)
def test_foreign_imports_of_a_file_that_has_one_finds_it(statement):
    """The twin: the check above can fail."""
    assert foreign_imports(f"import math\n{statement}\n")


def test_policy_imported_alone_loads_no_torch():
    bare = (
        "import sys, types\n"
        "package = types.ModuleType('checkpointable')\n"
        f"package.__path__ = [{str(ROOM.parent)!r}]  # the real package, without running its front door\n"
        "sys.modules['checkpointable'] = package\n"
        f"for name in {[file.stem for file in FILES if file.stem != '__init__']!r}:\n"
        "    __import__(f'checkpointable.policy.{name}')\n"
        "print(sorted({'torch', 'lightning', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.strip() == "[]"
