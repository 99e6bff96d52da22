"""The law for state that user code owns: generators, counts of passes, modes, gradients, metrics, early stopping.

Each case is trained once uninterrupted, and resumed from its files, inside epochs and at their ends, by a new module
and trainer with other seeds. Its twin, without the mechanism that restores the state, must differ.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import owned
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, EarlyStopping, GradientAccumulationScheduler
from nets import QUIET, load
from owned import Counting, Drawing, Seen, plain
from runs import EVERYTHING, Outcome, Rows, digest, hooks
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MetricCollection, wrappers
from torchmetrics.classification import MulticlassAccuracy, MulticlassPrecision, MulticlassRecall

from checkpointable.lightning_internals import logged
from checkpointable.lightning_internals import trainer as internals
from checkpointable.resume import module_state, owned_rng, sampler_state, worker_seeds

pytestmark = pytest.mark.filterwarnings("ignore")

SOME_FILES = {"save_interval": 2, "save_last_k": -1, "save_top_k": 0, "every_n_epochs": 1}
SHORTER: Any = {"options": {"max_epochs": 2}}  # worker processes take time to start
NO_FILES = {"save_interval": None, "save_top_k": 0, "save_last": False}


@pytest.fixture(autouse=True)
def _one_thread():
    """More threads slow down so small a module."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Case:
    """One training. It is resumed from one of ``every`` so many of its files."""

    module: Callable[..., Seen] = Seen
    data: Callable[[], DataLoader] = plain
    validation: Callable[[], DataLoader] = plain
    callbacks: Callable[[], list[L.Callback]] = list
    options: Mapping[str, Any] = field(default_factory=dict)
    saving: Mapping[str, Any] = field(default_factory=lambda: SOME_FILES)
    every: int = 2


def run(case: Case, where: Path, *, seed: int, ckpt_path: str | None = None, **saving: Any) -> Outcome:
    L.seed_everything(seed, verbose=False)
    module, rows = case.module(dirpath=where, **saving), Rows()
    rows.module = module
    quiet = {**QUIET, "logger": rows, "log_every_n_steps": 2, "default_root_dir": where, "max_epochs": 3}
    trainer = L.Trainer(
        **{**quiet, "num_sanity_val_steps": 1, **case.options}, callbacks=[hooks(L.pytorch), *case.callbacks()]
    )
    trainer.fit(module, case.data(), case.validation(), ckpt_path=ckpt_path)
    momenta = [state["momentum_buffer"] for it in trainer.optimizers for state in it.state_dict()["state"].values()]
    final = {
        "weights": {name: digest(weight) for name, weight in module.state_dict().items()},
        "optimizers": [digest(momentum) for momentum in momenta],
        "schedulers": [],
        "random": (random.random(), float(np.random.rand()), float(torch.rand(()))),
        "best": module.best_val_loss,
        "step": trainer.global_step,
        "metrics": {name: float(value) for name, value in sorted(trainer.callback_metrics.items())},
    }
    return Outcome(module.events, rows.taken, final)


def misses(case: Case, where: Path) -> Iterator[str]:
    """The difference after a resume, for each file that had one."""
    straight = run(case, where / "straight", seed=1, **case.saving)
    taken = list(straight.taken.items())[:: case.every]
    points = [load(path)["checkpointable"]["ended"] for path, _ in taken]
    assert points.count("batch") >= 2
    assert points.count("epoch") >= 1
    for number, (path, since) in enumerate(taken):
        resumed = run(case, where / str(number), seed=100 + number, ckpt_path=path, **NO_FILES)
        difference = resumed.differs_from(straight, since)
        if difference:
            yield f"{Path(path).name}: {difference}"


def nested(place: Callable[[], Dataset], **options: Any) -> Case:
    def loader() -> DataLoader:
        return plain(place(), shuffle=True, **options)

    return Case(data=loader, validation=loader, **(SHORTER if options else {}))


def in_workers(make: Callable[[], dict[str, Any]]) -> Case:
    return Case(data=lambda: plain(num_workers=2, **make()), **SHORTER)


def measured(make: Callable[[], Any], how: str) -> Case:
    class Measured(Seen):
        """Logs a metric at each epoch's end, and resets it after every other one."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.metric = make()

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            super().on_train_batch_end(outputs, batch, batch_idx)
            getattr(self.metric, how)(self.scores.detach(), batch[1])

        def on_train_epoch_end(self) -> None:
            values = self.metric.compute()
            self.log_dict(values if isinstance(values, dict) else {"metric": values})
            if self.current_epoch % 2:
                self.metric.reset()

    return Case(module=Measured)


def accuracy() -> MulticlassAccuracy:
    return MulticlassAccuracy(2, average="micro")


RESTORE, SEED, COUNTS = (owned_rng.Owners, "restore"), (worker_seeds, "seed"), (sampler_state.Held, "restore")
MODES, WINDOW, GRADIENTS = (
    (module_state, "restore_modes"),
    (module_state, "restore_accumulation"),
    (module_state, "restore_gradients"),
)
METRICS, STOPPED = (logged, "restore_metrics"), (internals, "stopped_early")
CASES: dict[str, tuple[Case, tuple[Any, str]]] = {
    "generators in transforms": (nested(owned.in_transforms), RESTORE),
    "generators in data sets of data sets": (nested(owned.in_data_sets_of_data_sets), RESTORE),
    "generators in functions": (nested(owned.in_functions), RESTORE),
    "generators in functions, workers": (nested(owned.in_functions, num_workers=2), SEED),
    "generators of 64 bits": (nested(owned.of_64_bits), RESTORE),
    "generators in transforms, workers": (nested(owned.in_transforms, num_workers=2), SEED),
    "generators in data sets of data sets, workers": (nested(owned.in_data_sets_of_data_sets, num_workers=2), SEED),
    "generators in a collate_fn": (Case(data=lambda: plain(collate_fn=owned.Noisy())), RESTORE),
    "batch sampler that draws": (Case(data=lambda: plain(batch_sampler=Drawing())), RESTORE),
    "sampler that counts": (Case(data=lambda: plain(sampler=Counting(False))), COUNTS),
    "batch sampler that counts": (Case(data=lambda: plain(batch_sampler=Counting(True))), COUNTS),
    "batch sampler that draws, workers": (in_workers(lambda: {"batch_sampler": Drawing()}), RESTORE),
    "sampler that counts, workers": (in_workers(lambda: {"sampler": Counting(False)}), COUNTS),
    "batch sampler that counts, workers": (in_workers(lambda: {"batch_sampler": Counting(True)}), COUNTS),
    "modes set by a callback": (Case(callbacks=lambda: [owned.Freezing()], options={"val_check_interval": 2}), MODES),
    "modes set by a hook": (Case(module=owned.FreezingItself), MODES),
    "BackboneFinetuning": (Case(callbacks=lambda: [BackboneFinetuning(1, backbone_initial_lr=0.01)]), MODES),
    "scheduled accumulation": (Case(callbacks=lambda: [GradientAccumulationScheduler({0: 1, 1: 3})], every=1), WINDOW),
    "accumulation by hand": (
        Case(module=owned.ByHand, options={"val_check_interval": 2}, saving=EVERYTHING),
        GRADIENTS,
    ),
    "optimizer_zero_grad": (Case(module=owned.Zeroing), GRADIENTS),
    "on_before_zero_grad": (Case(module=owned.Looking), GRADIENTS),
    "on_before_zero_grad of a callback": (Case(callbacks=lambda: [owned.LookingOn()]), GRADIENTS),
    "MinMaxMetric": (measured(lambda: wrappers.MinMaxMetric(accuracy()), "forward"), METRICS),
    "Running": (measured(lambda: wrappers.Running(accuracy(), window=3), "forward"), METRICS),
    "MetricCollection": (
        measured(lambda: MetricCollection([MulticlassPrecision(2), MulticlassRecall(2)]), "update"),
        METRICS,
    ),
    "BootStrapper": (measured(lambda: wrappers.BootStrapper(accuracy(), num_bootstraps=3), "update"), METRICS),
    "stop that waits for min_epochs": (
        Case(
            module=owned.Stuck,
            callbacks=lambda: [EarlyStopping("score", patience=1)],
            options={"min_epochs": 3, "max_epochs": 5, "val_check_interval": 2},
            saving=EVERYTHING,
        ),
        STOPPED,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_state_that_user_code_owns_resumes_as_in_the_uninterrupted_run(tmp_path, name):
    assert list(misses(CASES[name][0], tmp_path)) == []


@pytest.mark.parametrize("name", CASES)
def test_state_that_user_code_owns_differs_without_its_mechanism(tmp_path, monkeypatch, name):
    case, mechanism = CASES[name]
    monkeypatch.setattr(*mechanism, lambda *_, **__: None)
    assert next(misses(case, tmp_path), None) is not None


def test_generator_without_a_state_is_ignored(tmp_path):
    samples = owned.Augmented(owned.digits(), owned.Draws(random.SystemRandom(), lambda own: own.random()))
    straight = run(Case(data=lambda: plain(samples)), tmp_path, seed=1, **SOME_FILES)
    resumed = run(Case(data=lambda: plain(samples)), tmp_path, seed=2, ckpt_path=next(iter(straight.taken)), **NO_FILES)
    assert next(event[:3] for event in resumed.events if event[0] == "loss") == ("loss", 0, 2)


def test_window_of_manual_optimization_has_best_saves_inside_it_and_no_interval_save(tmp_path):
    taken = run(CASES["accumulation by hand"][0], tmp_path, seed=1, **EVERYTHING).taken
    saved = [load(path)["checkpointable"] for path in taken]
    inside = [it for it in saved if it["ended"] == "batch" and tuple(it["stepped"]) == (True, False)]
    assert {it["metadata"]["kind"] for it in inside} == {"best"}
    assert all(it["gradients"] for it in inside)
