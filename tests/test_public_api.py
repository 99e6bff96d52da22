"""The contract: names, signatures, defaults, and what importing costs."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from datetime import timedelta
from types import ModuleType
from typing import Any

import lightning as L
import pytest

import checkpointable
from checkpointable import Checkpointing, CheckpointingMixin, CheckpointingModule, PolicyError
from checkpointable.policy.options import Options

ARGUMENTS: dict[str, Any] = {
    "save_interval": "auto",
    "every_n_train_steps": None,
    "train_time_interval": None,
    "every_n_epochs": None,
    "keep_every_n_epochs": None,
    "overhead_budget": 0.01,
    "save_on_exception": True,
    "save_last": True,
    "monitor": "val_loss",
    "mode": "min",
    "min_delta": 0.0,
    "save_top_k": 1,
    "save_last_k": 1,
    "save_on_train_epoch_end": None,
    "save_weights_only": False,
    "save_trainable_only": False,
    "dirpath": None,
    "fast_dirpath": None,
    "upload_interval": None,
    "filename": "epoch_{epoch}_batch_{batch}",
    "best_filename": "best_{monitor}_epoch_{epoch}",
    "auto_insert_metric_name": False,
    "async_save": True,
    "resume": None,
    "strict_resume": False,
    "from_script": (),
    "save_timeout": 120,
    "deadline_seconds": None,
    "log_save_cost": False,
    "patience": None,
}
ERRORS = {
    "CheckpointFileError",
    "CheckpointableError",
    "CheckpointableWarning",
    "ComputeLossError",
    "LightningVersionError",
    "MissingComputeLossError",
    "MonitorError",
    "NotInitializedError",
    "NotLoadedError",
    "PolicyError",
    "RemoteError",
    "ResumeError",
    "SaveError",
    "UnknownArgumentError",
}
DOORS = {"CheckpointingModule", "CheckpointingMixin", "Checkpointing"}
NAMES = DOORS | {"Checkpoints", "CheckpointInfo", "latest", "best", "doctor", "to_single_file", "__version__"}
METHODS = {
    "compute_loss": ["self", "batch", "batch_idx"],
    "training_step": ["self", "batch", "batch_idx"],
    "validation_step": ["self", "batch", "batch_idx", "dataloader_idx"],
    "test_step": ["self", "batch", "batch_idx", "dataloader_idx"],
    "on_validation_epoch_end": ["self"],
    "configure_optimizers": ["self"],
}


def keyword_only(cls):
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def test_front_door_shows_exactly_the_contract():
    assert set(checkpointable.__all__) == NAMES | ERRORS
    shown = {name for name in dir(checkpointable) if not name.startswith("_")}
    modules = {name for name in shown if isinstance(getattr(checkpointable, name), ModuleType)}
    assert shown - modules == set(checkpointable.__all__) - {"__version__"}


def test_arguments_are_keyword_only_with_the_contracts_names_and_defaults():
    assert keyword_only(CheckpointingMixin) == ARGUMENTS
    assert keyword_only(Checkpointing) == ARGUMENTS
    assert keyword_only(CheckpointingModule) == {"learning_rate": 1e-3}


def test_module_takes_every_argument_of_the_mixin():
    net = CheckpointingModule(learning_rate=0.5, **ARGUMENTS)
    assert net.learning_rate == 0.5
    assert vars(net._checkpointing.options) == ARGUMENTS


def test_arguments_have_one_home():
    home = Options()
    assert {name: getattr(home, name) for name in Options.__dataclass_fields__} == ARGUMENTS


@pytest.mark.parametrize("name", METHODS)
def test_methods_of_the_contract_have_their_parameters(name):
    assert list(inspect.signature(getattr(CheckpointingModule, name)).parameters) == METHODS[name]


def test_bases_are_as_the_contract_says():
    assert issubclass(CheckpointingModule, CheckpointingMixin)
    assert CheckpointingModule.__mro__.index(CheckpointingMixin) + 1 == CheckpointingModule.__mro__.index(
        L.LightningModule
    )
    assert not issubclass(CheckpointingMixin, L.LightningModule)


def test_every_error_derives_from_ours_and_from_the_one_it_refines():
    refined = {
        "PolicyError": ValueError,
        "ComputeLossError": TypeError,
        "MissingComputeLossError": NotImplementedError,
        "MonitorError": LookupError,
        "SaveError": OSError,
        "RemoteError": OSError,
        "CheckpointFileError": ValueError,
        "ResumeError": RuntimeError,
        "NotInitializedError": RuntimeError,
        "LightningVersionError": ImportError,
        "CheckpointableWarning": UserWarning,
    }
    for name, builtin in refined.items():
        error = getattr(checkpointable, name)
        assert issubclass(error, builtin)
        assert name == "CheckpointableWarning" or issubclass(error, checkpointable.CheckpointableError)


def test_bad_arguments_are_reported_all_at_once_with_what_is_allowed():
    with pytest.raises(PolicyError) as caught:
        CheckpointingModule(mode="lowest", filename="{epoch", save_interval=0, train_time_interval=5)
    for part in ("mode='lowest': must be 'min' or 'max'", "filename='{epoch'", "save_interval=0", "timedelta"):
        assert part in str(caught.value)


@pytest.mark.parametrize("value", [0, -3, 2.5, "10", True])
def test_save_interval_that_is_no_count_is_refused(value):
    with pytest.raises(PolicyError, match=r"save_interval=.*whole number of batches, at least 1, or 'auto', or None"):
        CheckpointingModule(save_interval=value)


def test_changing_save_interval_to_a_bad_value_is_refused_and_changes_nothing():
    net = CheckpointingModule(save_interval=7)
    with pytest.raises(PolicyError, match="save_interval=-1"):
        net.save_interval = -1
    assert net.save_interval == 7


def test_attributes_before_the_first_fit():
    net = CheckpointingModule(train_time_interval=timedelta(minutes=5))
    assert (net.save_interval, net.best_val_loss, net.best_model_path, net.last_model_path) == (
        "auto",
        float("inf"),
        "",
        "",
    )
    assert (net.best_model_score, net.best_k_models) == (None, {})


def test_names_that_change_model_checkpoints_behaviour_are_not_used():
    assert not hasattr(CheckpointingModule(), "saved_models")
    assert not hasattr(CheckpointingModule(), "layer")


def test_every_public_name_is_there_whichever_way_it_is_imported():
    starred: dict[str, Any] = {}
    exec("from checkpointable import *", starred)
    for name in checkpointable.__all__:
        value = getattr(checkpointable, name)
        assert starred[name] is value
        assert name in dir(checkpointable)
        if isinstance(value, type):
            assert pickle.loads(pickle.dumps(value)) is value


def test_name_that_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'checkpointable' has no attribute 'lastest'"):
        checkpointable.lastest  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'lastest'"):
        from checkpointable import lastest  # noqa: F401


HEAVY = "print(sorted({'torch', 'lightning', 'lightning_utilities', 'fsspec', 'numpy'} & set(sys.modules)))"


@pytest.mark.parametrize(
    ("statement", "loaded"),
    [
        ("import checkpointable as c; c.Checkpoints; c.CheckpointInfo; c.latest; c.best; c.doctor; c.SaveError", "[]"),
        ("from checkpointable import Checkpoints; from checkpointable.storage.paths import is_remote", "[]"),
        ("from checkpointable.storage.paths import normalize_path; normalize_path('file:///a')", "['fsspec']"),
    ],
)
def test_reading_side_loads_neither_torch_nor_lightning_and_fsspec_only_for_a_url(statement, loaded):
    script = f"import sys; {statement}; {HEAVY}"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert found.stdout.strip() == loaded, found.stderr


def test_import_loads_nothing_that_lightning_has_not_loaded_and_of_ours_only_what_is_named():
    script = (
        "import lightning, sys; before = set(sys.modules); from checkpointable import CheckpointingModule;"
        "print([name for name in ('session', 'attach', 'saver') if f'checkpointable.saving.{name}' in sys.modules]);"
        "from checkpointable import *;"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before} - {'checkpointable'};"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=600)
    assert found.stdout.split("\n") == ["[]", "[]", ""], found.stderr
