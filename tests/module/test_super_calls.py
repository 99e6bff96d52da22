"""Users override hooks with and without super(), several levels deep, and from foreign mixins. Nothing is lost."""

from __future__ import annotations

import copy
import pickle
import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from nets import MixedNet, Net, PlainNet, files, load, loader, trainer

from checkpointable import CheckpointableWarning, CheckpointingMixin, CheckpointingModule, NotInitializedError

HOOKS = {
    "configure_callbacks": lambda self: [],
    "on_validation_epoch_end": lambda self: None,
    "on_save_checkpoint": lambda self, checkpoint: checkpoint.update(mine=1),
    "on_load_checkpoint": lambda self, checkpoint: None,
}


def fit_and_resume(cls, tmp_path):
    """Everything that our parts of the hooks are for."""
    net = cls(dirpath=tmp_path, save_interval=2)
    trainer(tmp_path).fit(net, loader(4), loader(1))
    assert "best_val_loss_epoch_0.ckpt" in files(tmp_path)
    assert net.best_val_loss < float("inf")
    again = cls()
    trainer(tmp_path, max_epochs=2).fit(again, loader(4), loader(1), ckpt_path=net.last_model_path)
    assert load(again.last_model_path)["checkpointable"]["position"]["epoch"] == 1
    assert (
        load(again.last_model_path)["checkpointable"]["run_id"] == load(net.last_model_path)["checkpointable"]["run_id"]
    )


@pytest.mark.parametrize("hook", HOOKS)
def test_forgotten_super_loses_nothing_and_is_said_once_for_class_and_hook(tmp_path, hook):
    cls = type("Forgetful", (Net,), {hook: HOOKS[hook]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CheckpointableWarning)
        fit_and_resume(cls, tmp_path)
    ours = [str(warning.message) for warning in caught if warning.category is CheckpointableWarning]
    assert len(ours) == 1
    assert f"Forgetful.{hook} does not call super().{hook}(...)" in ours[0]
    assert "call super()" in ours[0]


@pytest.mark.parametrize("hook", HOOKS)
def test_forgotten_super_in_code_written_for_a_lightning_module_is_not_even_said(tmp_path, hook):
    cls = type("Migrated", (MixedNet,), {hook: HOOKS[hook]})
    fit_and_resume(cls, tmp_path)


@pytest.mark.parametrize("hook", HOOKS)
def test_super_called_at_any_depth_runs_our_part_once(tmp_path, hook):
    calls = []

    class One(Net):
        pass

    def calling(cls):
        def override(self, *args):
            calls.append(cls)
            return getattr(super(cls, self), hook)(*args)

        return override

    first = type("First", (Net,), {})
    setattr(first, hook, calling(first))
    second = type(
        "Second", (first,), {hook: lambda self, *args: calls.append("second") or getattr(first, hook)(self, *args)}
    )
    fit_and_resume(second, tmp_path)
    assert calls[:2] == ["second", first]


@pytest.mark.parametrize("hook", HOOKS)
def test_override_from_a_foreign_mixin_without_super_loses_nothing(tmp_path, hook):
    foreign = type("Foreign", (), {hook: HOOKS[hook]})

    class Mixed(foreign, MixedNet):
        pass

    fit_and_resume(Mixed, tmp_path)


def test_override_of_every_other_hook_without_super_changes_nothing(tmp_path):
    ours = set(HOOKS) | {"training_step", "validation_step", "configure_optimizers", "optimizer_step", "backward"}
    ours |= {"on_test_epoch_end"}
    hooks = [name for name in vars(L.pytorch.core.hooks.ModelHooks) if name.startswith("on_") and name not in ours]
    hooks = [name for name in hooks if "model_" not in name and "batch_transfer" not in name]
    assert "on_train_batch_end" in hooks
    cls = type("Overriding", (Net,), {name: lambda self, *args, **kwargs: None for name in hooks})
    fit_and_resume(cls, tmp_path)


def test_training_step_of_ones_own_is_saved_at_its_interval(tmp_path):
    class Own(Net):
        def training_step(self, batch, batch_idx):
            return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    trainer(tmp_path).fit(Own(dirpath=tmp_path, save_interval=2, save_top_k=0, save_last=False), loader(3))
    assert files(tmp_path) == ["epoch_0_batch_2.ckpt"]


def test_callbacks_returned_by_the_user_are_attached(tmp_path):
    class Mine(L.Callback):
        started = 0

        def on_train_start(self, *_):
            Mine.started += 1

    class With(Net):
        def configure_callbacks(self):
            return [*super().configure_callbacks(), Mine()]

    own = trainer(tmp_path)
    own.fit(With(), loader(2))
    assert Mine.started == 1
    assert own.checkpoint_callback.last_model_path


def test_overrides_keep_their_names_signatures_and_lightnings_view_of_them():
    class Documented(Net):
        def on_validation_epoch_end(self):
            """Mine."""
            super().on_validation_epoch_end()

    assert Documented.on_validation_epoch_end.__doc__ == "Mine."
    assert is_overridden("on_validation_epoch_end", Documented())
    assert not is_overridden("on_train_batch_end", Documented())


@pytest.mark.parametrize("base", [CheckpointingModule, CheckpointingMixin])
def test_forgotten_init_is_refused_at_the_first_use_with_the_cure(tmp_path, base):
    class Forgetful(base, *(() if base is CheckpointingModule else (L.LightningModule,))):
        def __init__(self):
            self.width = 2

    with pytest.raises(NotInitializedError, match=r"Forgetful was not initialised.*Call super\(\).__init__\(\)"):
        trainer(tmp_path).fit(Forgetful(), loader(2))


def test_attributes_asked_for_before_super_init_are_missing_as_in_any_module():
    class Cautious(CheckpointingModule):
        def __init__(self, width=2):
            self.seen = hasattr(self, "_cache"), getattr(self, "_cache", 7)
            self.save_hyperparameters()
            seen = self.__dict__.pop("seen")
            super().__init__()
            self.seen = seen

    net = Cautious(width=3)
    assert net.seen == (False, 7)


def test_init_that_reaches_super_through_a_helper_is_as_good_as_any(tmp_path):
    class Helped(PlainNet):
        def __init__(self, **options):
            self.set_up(**options)

        def set_up(self, **options):
            super().__init__(**options)

    class Net(CheckpointingMixin, Helped):
        def __init__(self, **options):
            initialize(self, **options)

    def initialize(net, **options):
        super(Net, net).__init__(**options)

    net = Net(dirpath=tmp_path, save_interval=2)
    trainer(tmp_path).fit(net, loader(4), loader(1))
    assert net.last_model_path


def test_base_class_behind_ours_may_save_hyperparameters():
    class LabBase(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters()

    class Net(CheckpointingModule, LabBase):
        def __init__(self, width=3):
            super().__init__(save_interval=5)
            self.layer = torch.nn.Linear(width, 1)

    assert Net(width=4).hparams["width"] == 4


def test_init_that_passes_the_mixin_by_is_refused_with_the_cure(tmp_path):
    class Bypassing(CheckpointingMixin, PlainNet):
        def __init__(self):
            L.LightningModule.__init__(self)
            self.layer = torch.nn.Linear(2, 2)

    with pytest.raises(NotInitializedError, match=r"Call super\(\).__init__\(\) in the first line of every __init__"):
        trainer(tmp_path).fit(Bypassing(), loader(2))


class Global(Net):
    """A class that pickle can find."""

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()


class Copying(L.Callback):
    """Pickles and copies the module in the middle of a fit."""

    copies: list = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 2:
            self.copies[:] = [pickle.loads(pickle.dumps(pl_module)), copy.deepcopy(pl_module)]


def test_pickled_and_copied_modules_work_before_during_and_after_a_fit(tmp_path):
    net = pickle.loads(pickle.dumps(copy.deepcopy(Global(dirpath=tmp_path, save_interval=2))))
    trainer(tmp_path, callbacks=[Copying()]).fit(net, loader(4), loader(1))
    after = [pickle.loads(pickle.dumps(net)), copy.deepcopy(net)]
    for number, twin in enumerate([*Copying.copies, *after]):
        assert twin.best_model_path in ("", net.best_model_path)
        twin._checkpointing.change(dirpath=tmp_path / str(number))
        trainer(tmp_path).fit(twin, loader(4), loader(1))
        assert files(tmp_path / str(number)) == ["best_val_loss_epoch_0.ckpt"]
    assert net.best_val_loss == after[0].best_val_loss or after[0].best_val_loss < float("inf")


def test_trainer_is_pickled_after_a_fit(tmp_path):
    own = trainer(tmp_path)
    own.fit(Global(dirpath=tmp_path), loader(2), loader(1))
    again = pickle.loads(pickle.dumps(own))
    assert again.fit_loop.epoch_progress.current.completed == 1
    assert isinstance(again.fit_loop, type(own.fit_loop).__bases__)


class Delegating(L.LightningModule):
    """Asks another object for what it does not have."""

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._inner, name)


def test_private_name_before_the_initialisation_is_told_also_beside_a_base_class_that_delegates():
    class Early(CheckpointingMixin, Delegating):
        def __init__(self):
            assert not hasattr(self, "_config")
            with pytest.raises(NotInitializedError):
                self._config  # noqa: B018  # reading it is what is tried
            super().__init__()

    Early()
