"""The observers stand before Lightning's own classes, and what they observe can still be pickled and copied."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.loops import _FitLoop, _TrainingEpochLoop
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.utilities import CombinedLoader
from nets import Net, durable_io, loader, trainer

from checkpointable.lightning_internals import combined_loader, loops, tree
from checkpointable.lightning_internals.checkpoint_io import DurableCheckpointIO
from checkpointable.lightning_internals.listener import Listener
from checkpointable.resume.reading import ResumingCheckpointIO

HERE = Path(__file__).parent


class UsersFitLoop(_FitLoop):
    """A loop that a user wrote."""

    runs = 0

    def run(self):
        self.runs += 1
        super().run()


class UsersLoader(CombinedLoader):
    """A loader that a user wrote."""


def fitted(tmp_path, *, own_loop=False, train=None):
    own = trainer(tmp_path, max_epochs=2)
    if own_loop:
        theirs = UsersFitLoop(own, min_epochs=0, max_epochs=2)
        theirs.epoch_loop = own.fit_loop.epoch_loop
        own.fit_loop = theirs
    own.fit(Net(dirpath=tmp_path / "saved", save_interval=2), loader(3) if train is None else train, loader(1))
    return own


def assert_observed(own) -> None:
    assert isinstance(own.fit_loop, loops._ObservedFitLoop)
    assert isinstance(own.fit_loop.epoch_loop, loops._ObservedEpochLoop)
    assert isinstance(own.fit_loop.epoch_loop.val_loop, loops._ObservedEvaluationLoop)
    assert isinstance(own.strategy.checkpoint_io, ResumingCheckpointIO)
    assert isinstance(own.strategy.checkpoint_io, TorchCheckpointIO)


@pytest.mark.parametrize("own_loop", [False, True], ids=["lightning's loop", "a user's loop"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda own: pickle.loads(pickle.dumps(own))], ids=["copy", "pickle"])
def test_trainer_after_a_fit_can_be_copied_and_its_copy_trains_on(tmp_path, copied, own_loop):
    own = fitted(tmp_path, own_loop=own_loop)
    again = copied(own)
    assert_observed(again)
    assert type(again.fit_loop) is type(own.fit_loop)
    assert again.fit_loop is not own.fit_loop
    again.fit_loop.max_epochs = 3
    again.fit(again.lightning_module, loader(3), loader(1))
    assert (own.global_step, again.global_step) == (6, 9)
    assert getattr(again.fit_loop, "runs", 2) == 2


def test_pickled_trainer_comes_back_in_another_process(tmp_path):
    (tmp_path / "trainer.pickle").write_bytes(pickle.dumps(fitted(tmp_path)))
    code = (
        "import pickle, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        f"own = pickle.load(open({str(tmp_path / 'trainer.pickle')!r}, 'rb'))\n"
        "from lightning.pytorch.loops import _FitLoop\n"
        "print(isinstance(own.fit_loop, _FitLoop), *[c.__name__ for c in type(own.fit_loop).__bases__])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        cwd=HERE.parent,  # the module of the pickled Net is imported from there
    )
    assert done.stdout.split() == ["True", "_ObservedFitLoop", "_FitLoop"]


def test_trainer_without_the_pickling_of_mixins_cannot_be_pickled(tmp_path, monkeypatch):
    """The twin: a combined class has no name to import it by."""
    own = fitted(tmp_path)
    monkeypatch.delattr(tree.Mixin, "__reduce_ex__")
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(own)


def test_users_combined_loader_is_observed_and_can_be_pickled(tmp_path):
    theirs = UsersLoader(loader(3), "max_size_cycle")
    fitted(tmp_path, train=theirs)
    assert isinstance(theirs, combined_loader._ObservedCombinedLoader)
    assert type(theirs).__name__ == "UsersLoader"
    again = pickle.loads(pickle.dumps(theirs))
    assert type(again) is type(theirs)
    assert len(list(again)) == 3


def test_trainer_can_be_copied_in_the_middle_of_a_fit(tmp_path):
    copies = []

    class Copying(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            copies.append(copy.deepcopy(trainer))

    own = trainer(tmp_path, callbacks=[Copying()])
    own.fit(Net(dirpath=tmp_path / "saved"), loader(2), loader(1))
    assert [one.global_step for one in copies] == [1, 2]


def test_observed_loops_keep_their_names_in_a_profile(tmp_path):
    own = trainer(tmp_path, profiler=SimpleProfiler())
    own.fit(Net(dirpath=tmp_path), loader(3), loader(1))
    actions = own.profiler.recorded_durations
    assert "[_TrainingEpochLoop].train_dataloader_next" in actions
    assert not any("Observed" in action for action in actions)


def test_observing_twice_changes_nothing(tmp_path):
    own = trainer(tmp_path)
    loops.observe(own, Listener())
    classes = type(own.fit_loop), type(own.fit_loop.epoch_loop)
    loops.observe(own, Listener())
    assert (type(own.fit_loop), type(own.fit_loop.epoch_loop)) == classes
    assert classes[1].__bases__ == (loops._ObservedEpochLoop, _TrainingEpochLoop)


def test_class_that_pickles_in_its_own_way_still_does():
    class Base:
        def __reduce__(self):
            return (str, ("in its own way",))

    assert pickle.loads(pickle.dumps(tree.combined(DurableCheckpointIO, Base)())) == "in its own way"


def test_checkpoint_io_can_be_pickled():
    again = pickle.loads(pickle.dumps(durable_io()))
    assert type(again) is type(durable_io())
