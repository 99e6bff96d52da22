"""Before a trainer is used, every name of Lightning that the library needs is looked for."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import lightning as L
import pytest
from nets import trainer

from checkpointable import LightningVersionError
from checkpointable.lightning_internals import tree
from checkpointable.lightning_internals.names import IMPORTED, OF_CLASSES, OF_TRAINER
from checkpointable.lightning_internals.tree import check

RESULT = import_module("lightning.pytorch.trainer.connectors.logger_connector.result")


@pytest.fixture(autouse=True)
def nothing_checked_yet():
    """The classes of a tree are looked up and checked once in a process."""
    for cached in (tree.load, tree._check_classes):
        cached.cache_clear()
    yield
    for cached in (tree.load, tree._check_classes):
        cached.cache_clear()


def assert_refused(own, name: str) -> None:
    with pytest.raises(LightningVersionError) as caught:
        check(own)
    text = str(caught.value)
    assert text.startswith("lightning.pytorch 2.6.")
    assert name in text
    assert text.endswith("Install a version it was tested with: pip install 'lightning>=2.6.6,<2.7'.")


def test_trainer_of_this_lightning_passes(tmp_path):
    check(trainer(tmp_path))


def test_trainer_of_the_second_tree_passes_and_gets_classes_of_that_tree(tmp_path):
    if find_spec("pytorch_lightning") is None:
        pytest.skip("pytorch_lightning is not installed")
    code = (
        "import lightning.pytorch, pytorch_lightning\n"
        "from checkpointable.lightning_internals import tree\n"
        "for package in (pytorch_lightning, lightning.pytorch):\n"
        f"    own = package.Trainer(logger=False, accelerator='cpu', devices=1, default_root_dir={str(tmp_path)!r})\n"
        "    tree.check(own)\n"
        "    assert tree.find(own, 'ModelCheckpoint') is package.callbacks.ModelCheckpoint\n"
        "    assert tree.is_a(own.fit_loop, '_FitLoop')\n"
        "print(tree.find(pytorch_lightning.Trainer, '_FitLoop').__module__)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout == "pytorch_lightning.loops.fit_loop\n", done.stderr


def test_missing_attribute_of_a_trainer_is_named_with_the_cure(tmp_path):
    own = trainer(tmp_path)
    del own.fit_loop.epoch_loop._batches_that_stepped
    assert_refused(own, "has no Trainer.fit_loop.epoch_loop._batches_that_stepped, which checkpointable needs")


@pytest.mark.parametrize("name", ["Trainer", "_MaxSizeCycle", "sized_len"])
def test_missing_class_or_function_is_named_with_the_cure(tmp_path, monkeypatch, name):
    own = trainer(tmp_path)
    place = next(path for path in IMPORTED if path.endswith(f".{name}")).rpartition(".")[0]
    monkeypatch.delattr(import_module(f"lightning.{place}"), name)
    assert_refused(own, f"has no lightning.{place}.{name}, which checkpointable needs")


def test_missing_module_is_named_with_the_cure(tmp_path, monkeypatch):
    own = trainer(tmp_path)
    monkeypatch.setitem(sys.modules, "lightning.pytorch.utilities.combined_loader", None)
    assert_refused(own, "has no lightning.pytorch.utilities.combined_loader._MaxSizeCycle")


def test_missing_attribute_of_a_class_is_named_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "OF_CLASSES", (*OF_CLASSES, "CombinedLoader._stacked"))
    assert_refused(trainer(tmp_path), "has no CombinedLoader._stacked")


def test_field_of_logged_values_that_is_not_saved_is_named(tmp_path, monkeypatch):
    wider = dataclasses.make_dataclass("_Metadata", [("window", int, 1)], bases=(RESULT._Metadata,))
    monkeypatch.setattr(RESULT, "_Metadata", wider)
    assert_refused(trainer(tmp_path), "logs values with other fields than checkpointable saves (window)")


def test_class_that_takes_other_arguments_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(RESULT, "_Sync", lambda process_group: None)
    assert_refused(trainer(tmp_path), "takes other arguments than checkpointable gives: ")


def test_trainer_whose_run_takes_no_path_is_refused(tmp_path, monkeypatch):
    own = trainer(tmp_path)
    monkeypatch.setattr(L.Trainer, "_run", lambda self, model: None)
    assert_refused(own, "has no argument ckpt_path of Trainer._run")


def test_thing_of_neither_tree_is_refused():
    with pytest.raises(LightningVersionError, match=r"object is no class of Lightning: checkpointable knows lightning"):
        check(object())


def test_check_evaluates_no_property_at_the_end_of_a_path(tmp_path):
    own = trainer(tmp_path)
    assert "_results" in OF_TRAINER

    class Watched(type(own)):
        @property
        def _results(self):
            raise AssertionError("evaluated")

    own.__class__ = Watched
    check(own)


def test_room_imported_alone_imports_no_lightning():
    bare = (
        "import sys, types, pathlib\n"
        "package = types.ModuleType('checkpointable')\n"
        f"package.__path__ = [{str(tree.__file__).rpartition('/lightning_internals')[0]!r}]  # without __init__.py\n"
        "sys.modules['checkpointable'] = package\n"
        "room = pathlib.Path(package.__path__[0]) / 'lightning_internals'\n"
        "for file in room.glob('*.py'):\n"
        "    __import__(f'checkpointable.lightning_internals.{file.stem}')\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(roots & {'lightning', 'lightning_fabric', 'pytorch_lightning', 'torch'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.strip() == "['torch']"
