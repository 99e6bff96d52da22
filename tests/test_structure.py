"""The rooms of the package import in one direction, and only one of them touches what Lightning keeps private."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import checkpointable
from checkpointable.lightning_internals.names import IMPORTED, OF_CLASSES, OF_DDP, OF_LOGGERS, OF_TORCH, OF_TRAINER

PACKAGE = Path(checkpointable.__file__).parent
SOURCES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path.read_text("utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}
ROOM = "checkpointable.lightning_internals"
LIST = f"{ROOM}.names"

# Each room may import from those on lower steps and from itself.
STEPS = {
    "_errors": 0,
    "_version": 0,
    "policy": 1,
    "storage": 2,
    "catalog": 3,
    "lightning_internals": 3,
    "resume": 4,
    "saving": 5,
    "module": 6,
    "cli": 6,
    "pl": 7,  # the door for pytorch_lightning
    "": 7,  # the package's own __init__.py
    "__main__": 7,  # python -m checkpointable
}

# Private names of others than Lightning, with their owners.
OTHERS = {
    "_accumulate_grad_batches": "StochasticWeightAveraging sets it in an epoch, so that a new one has none to check",
    "_backward_hooks": "torch.Tensor",
    "_bit_generator": "numpy.random.Generator",
    "_cdata": "torch.UntypedStorage",
    "_cpu_tag": "torch.serialization",
    "_dtype_to_storage_type_map": "torch.storage",
    "_get_storage_alignment": "torch.serialization",
    "_iterator": "torch.utils.data.DataLoader",
    "_new_dtypes": "torch.storage",
    "_package_registry": "torch.serialization",
    "_parent": "fsspec.AbstractFileSystem",
    "_rebuild_tensor_v2": "torch._utils",
    "_schedulers": "torch.optim.lr_scheduler.SequentialLR",
    "_strip_protocol": "fsspec.AbstractFileSystem",
    "_utils": "torch",
    "_version": "torch.Tensor",
    "log_batch": "mlflow.MlflowClient",
}

OF_ALL_LOGGERS = [name for names in OF_LOGGERS.values() for name in names]
LISTED = {
    name
    for path in (*IMPORTED, *OF_TRAINER, *OF_CLASSES, *OF_TORCH, *OF_DDP, *OF_ALL_LOGGERS)
    for name in path.split(".")
}


def imports(source: str, known: Mapping[str, str]) -> set[str]:
    """The modules of the package that a source imports, inside functions and for types, too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "checkpointable"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import: {ast.unparse(node)}"
            module = node.module or ""
            if module.split(".")[0] == "checkpointable":
                names = {f"{module}.{alias.name}" for alias in node.names}
                found |= {name if name in known else module for name in names}
    return found


def room(module: str) -> str:
    return module.partition(".")[2].split(".")[0]


def upward(sources: Mapping[str, str]) -> list[str]:
    """The imports that go up, or across to another room on the same step."""
    return [
        f"{module} imports {other}"
        for module, source in sources.items()
        for other in sorted(imports(source, sources))
        if room(other) != room(module) and STEPS[room(other)] >= STEPS[room(module)]
    ]


def circle(sources: Mapping[str, str]) -> list[str]:
    """Modules that import one another in a circle; none if there is no circle."""
    graph = {module: imports(source, sources) & sources.keys() for module, source in sources.items()}
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in done:
            for other in sorted(graph[module]):
                if found := visit(other, [*path, module]):
                    return found
            done.add(module)
        return []

    return next(filter(None, (visit(module, []) for module in graph)), [])


def is_private(name: str) -> bool:
    return re.fullmatch(r"_(?!_)\w+", name) is not None


def defined(source: str) -> set[str]:
    """Every name that a source defines: functions, classes, variables, arguments, attributes of ``self``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node.value):
            found.add(node.attr)
    return found


def _is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def foreign_private(source: str, ours: set[str]) -> set[str]:
    """The private names that a source takes of a thing other than ``self`` and that are not defined in the package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and not _is_own(node.value):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and "lightning" in (node.module or "").split(".")[0]:
            found |= {alias.name for alias in node.names if is_private(alias.name)}
    return {name for name in found if name in LISTED or name not in ours} - OTHERS.keys() - _marks(found)


def _marks(names: set[str]) -> set[str]:
    """The attributes that the library sets on things of others."""
    return {name for name in names if name.startswith(("_checkpointing", "_checkpointable"))}


def used_of_lightning(source: str) -> set[str]:
    """The names of Lightning that a source of the room uses, private ones and those of overridden methods."""
    tree = ast.parse(source)
    made = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    made |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    found = set(_quoted(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            of_base = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super"
            if of_base or (is_private(node.attr) and node.attr not in made):
                found.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg is not None and is_private(node.arg):
            found.add(node.arg)
    return found - (OTHERS.keys() - LISTED) - _marks(found) - {"__reduce_ex__"}


def _quoted(tree: ast.Module) -> Iterator[str]:
    """Names in strings: private ones, and all that are looked up in a tree of Lightning."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and is_private(node.value):
            yield node.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("find", "is_a", "load"):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def imports_lightning(source: str) -> list[str]:
    """The imports of Lightning that run when a source is imported: not those in functions or for types alone."""
    run = [node for node in _run_at_import(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return [line for line in map(ast.unparse, run) if "lightning" in line.split()[1].split(".")[0]]


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        inner: list[ast.AST] = [*node.orelse]
    else:
        inner = [] if isinstance(node, ast.FunctionDef) else list(ast.iter_child_nodes(node))
    for child in inner:
        yield from _run_at_import(child)


def test_command_imports_from_the_catalog_and_below_alone():
    ours = {module: source for module, source in SOURCES.items() if room(module) == "cli"}
    rooms = {room(other) for source in ours.values() for other in imports(source, SOURCES)}
    assert rooms <= {"_errors", "_version", "policy", "storage", "catalog", "cli"}


def test_every_room_imports_only_from_rooms_below_it():
    assert upward(SOURCES) == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("policy.options", "import checkpointable.storage.store"),
        ("policy.options", "from checkpointable.storage.store import Store"),
        ("policy.options", "from checkpointable.storage import store"),
        ("storage.store", "def read():\n    from checkpointable.catalog.info import read_info"),
        ("catalog.info", "from checkpointable.lightning_internals import trainer"),
        (
            "lightning_internals.trainer",
            "if TYPE_CHECKING:\n    from checkpointable.catalog.info import CheckpointInfo",
        ),
        ("resume.report", "from checkpointable import CheckpointingModule"),
        ("saving.session", "from checkpointable.module.mixin import CheckpointingMixin"),
    ],
)
def test_import_from_a_room_above_or_beside_is_found(module, statement):
    """The twin of the direction."""
    assert len(upward({**SOURCES, f"checkpointable.{module}": statement})) == 1


def test_no_modules_import_one_another_in_a_circle():
    assert circle(SOURCES) == []


def test_circle_of_three_modules_and_one_for_types_is_found():
    """The twin of the circles."""
    sources = {
        "checkpointable.policy.a": "from checkpointable.policy import b",
        "checkpointable.policy.b": "from checkpointable.policy.c import thing",
        "checkpointable.policy.c": "if TYPE_CHECKING:\n    from checkpointable.policy.a import other",
    }
    a, b, c = sources
    assert circle(sources) == [a, b, c, a]


def test_nothing_lies_at_the_top_of_the_package_but_its_doors_errors_and_version():
    assert {path.name for path in PACKAGE.glob("*.py")} == {
        *("__init__.py", "__main__.py", "pl.py", "_errors.py", "_version.py")
    }
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == STEPS.keys() - {"", "__main__", "pl", "_errors", "_version"}


def test_no_private_name_of_lightning_is_used_outside_its_room():
    ours = {name for source in SOURCES.values() for name in defined(source)}
    outside = {module: source for module, source in SOURCES.items() if room(module) != "lightning_internals"}
    assert {module: names for module, source in outside.items() if (names := foreign_private(source, ours))} == {}


@pytest.mark.parametrize(
    "statement",
    [
        "trainer.fit_loop._combined_loader",
        "self.trainer._results",
        "loader._flattened = []",
        "trainer._something_new",
        "from lightning.pytorch.loops import _FitLoop",
        "from lightning_fabric.utilities.data import _set_sampler_epoch",
        "def f(trainer):\n    return trainer._active_loop",
    ],
)
def test_private_name_of_lightning_outside_its_room_is_found(statement):
    """The twin: also where the package defines an attribute of that name itself."""
    ours = {name for source in SOURCES.values() for name in defined(source)} | {"_results"}
    assert len(foreign_private(statement, ours)) == 1


@pytest.mark.parametrize(
    "statement", ["self._results", "shelf._ours", "tensor._version", "stopping._checkpointable_run"]
)
def test_name_of_ours_or_of_a_known_owner_is_no_private_name_of_lightning(statement):
    assert foreign_private(statement, {"_ours"}) == set()


def test_every_name_that_the_room_uses_is_in_the_list_that_is_checked():
    used = {module: used_of_lightning(s) for module, s in SOURCES.items() if room(module) == "lightning_internals"}
    del used[LIST]
    assert {module: names - LISTED for module, names in used.items() if names - LISTED} == {}


@pytest.mark.parametrize(
    "statement",
    [
        "trainer._new_connector.dump()",
        "class A(Mixin):\n    def reset(self):\n        self._new_attribute = 1",
        "class A(Mixin):\n    def on_new_hook(self):\n        super().on_new_hook()",
        "class A(Mixin):\n    def _new_hook(self):\n        super()._new_hook()",
        "getattr(connector, '_new_metrics')",
        "sync = Sync(_new_argument=1)",
        "find(trainer, 'NewCallback')",
        "is_a(loop, '_FitLoop', '_NewLoop')",
    ],
)
def test_name_that_the_room_uses_and_the_list_lacks_is_found(statement):
    """The twin of the list."""
    assert len(used_of_lightning(statement) - LISTED) == 1


def test_list_has_no_private_name_that_nothing_uses():
    used = {name for module, source in SOURCES.items() if module != LIST for name in used_of_lightning(source)}
    overridden = {name for source in SOURCES.values() for name in defined(source)}
    assert {name for name in LISTED if is_private(name)} - used - overridden == set()


def test_room_imports_nothing_of_lightning_when_it_is_imported():
    found = {m: imports_lightning(source) for m, source in SOURCES.items() if room(m) == "lightning_internals"}
    assert {module: lines for module, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "statement",
    [
        "import lightning",
        "from lightning.pytorch import Trainer",
        "from pytorch_lightning.callbacks import Callback",
        "try:\n    import pytorch_lightning\nexcept ImportError:\n    pass",
        "if TYPE_CHECKING:\n    import torch\nelse:\n    from lightning.pytorch import Trainer",
    ],
)
def test_import_of_lightning_that_runs_is_found(statement):
    """The twin."""
    assert len(imports_lightning(statement)) == 1


LIGHTNING_AT_IMPORT = {f"checkpointable.{name}" for name in ("pl", "module.module", "module.checkpointing")}


def test_only_the_doors_import_lightning_by_name():
    """All other code gets its classes from the tree of the trainer at hand."""
    found = set()
    for module, source in SOURCES.items():
        for node in _outside_type_checking(ast.parse(source)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.split(".")[0] in ("lightning", "pytorch_lightning", "lightning_fabric") for name in names):
                found.add(module)
    assert found == LIGHTNING_AT_IMPORT


def _outside_type_checking(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _outside_type_checking(child)
