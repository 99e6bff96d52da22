"""The messages of the library's errors and warnings, as its source writes them: ``…`` stands for each value."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import checkpointable
from checkpointable import _errors

PACKAGE = Path(checkpointable.__file__).parent
GAP = "…"
ERRORS = {name for name in _errors.__all__ if name.endswith("Error")}
_SAID = {"rank_zero_warn", "rank_zero_info", "warnings.warn", "warnings.warn_explicit"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Each file of the package, with its name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def of_errors() -> dict[str, str]:
    """The message of each place where one of the library's exceptions is made."""
    return dict(_messages(lambda call: _name(call.func).split(".")[-1] in ERRORS and bool(call.args)))


def of_said() -> dict[str, str]:
    """The message of each warning, and of each line that is logged."""
    return dict(_messages(lambda call: _name(call.func) in _SAID or _name(call.func).endswith("messages.append")))


def _messages(is_one: Callable[[ast.Call], bool]) -> Iterator[tuple[str, str]]:
    for name, tree in sources():
        values = _assigned(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and is_one(node):
                yield f"{name}:{node.lineno}", _text(node.args[0], values)


def _assigned(tree: ast.Module) -> dict[str, ast.expr]:
    """What names stand for, where a file assigns a text to them once."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append(node.value)
    return {name: given[0] for name, given in found.items() if len(given) == 1}


def _text(node: ast.expr, values: dict[str, ast.expr], depth: int = 0) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, values, depth) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, values, depth + 1) if isinstance(node.value, ast.Name) else GAP
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, values, depth) + _text(node.right, values, depth)
    if isinstance(node, ast.Name) and node.id in values and depth < 3:
        return _text(values[node.id], values, depth + 1)
    if isinstance(node, ast.Call) and _name(node.func).endswith(".join") and isinstance(node.args[0], ast.List):
        return "\n".join(_text(item, values, depth) for item in node.args[0].elts)
    return GAP


def _name(node: ast.expr) -> str:
    return ast.unparse(node)
