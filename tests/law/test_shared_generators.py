"""The law for random generators that the training draws from: the module's own, and those that it shares with an order.

An order is drawn again at a resume. Where something else has drawn from its generator in between, that gives another
one, unless the order had been drawn at once. So these cases are exact, or the line at the resume names the generator.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import load
from owned import Drawing, Seen, digits, plain
from test_owned import NO_FILES, SOME_FILES, Case, misses, run
from torch.utils.data import DataLoader, RandomSampler, Sampler

from checkpointable.resume import index_batches, module_rng, owned_rng

pytestmark = pytest.mark.filterwarnings("ignore")


class Noise:
    """Is no module, and keeps its generators in a dictionary."""

    def __init__(self) -> None:
        self.generators = {"bits": np.random.default_rng(3), "old": np.random.RandomState(4)}

    def draw(self) -> float:
        return float(self.generators["bits"].normal() + self.generators["old"].normal())


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)
        self._hidden = random.Random(6)

    def forward(self) -> float:
        return float(torch.rand((), generator=self.generator)) + self._hidden.gauss()


class Owning(Seen):
    """Adds noise to its gradients, from generators in attributes, a module and an object, and one made at a step."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.block, self.noise, self.steps = Block(), Noise(), [random.Random(8)]

    def draw(self) -> float:
        return self.block() + self.noise.draw() + self.steps[0].random()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        for weight in self.parameters():
            weight.grad.add_(0.1 * self.draw())


class Sharing(Owning):
    """Draws from the generator of the sampler."""

    def draw(self) -> float:
        loader: Any = self.trainer.train_dataloader
        drawn_from = getattr(loader.sampler, "generator", None) or loader.batch_sampler.generator
        return float(torch.rand((), generator=drawn_from))


class Late(Owning):
    """Makes a generator in its second epoch."""

    late: random.Random | None = None

    def draw(self) -> float:
        if self.current_epoch == 0:
            return 1.0
        if self.late is None:
            self.late = random.Random(9)
        return self.late.random()


def drawn(*, often: bool, **options: Any) -> DataLoader:
    """A loader whose sampler draws from a generator that it is given, at once or 32 samples at a time."""
    generator = options.pop("generator", None) or torch.Generator().manual_seed(3)
    more = {"replacement": True, "num_samples": 72} if often else {}
    return plain(sampler=RandomSampler(digits(), generator=generator, **more), **options)


def of_default() -> DataLoader:
    return drawn(often=True, generator=torch.default_generator)


EXACT: dict[str, tuple[Case, tuple[Any, str, Any]]] = {
    "of the module": (Case(module=Owning), (module_rng, "restore", lambda *_: None)),
    "of an order drawn at once": (
        Case(module=Sharing, data=lambda: drawn(often=False)),
        (owned_rng.Owners, "restore", lambda *_: None),
    ),
    "torch's own, by an order drawn bit by bit": (
        Case(data=of_default, saving={**SOME_FILES, "save_interval": 5}),
        (index_batches, "draws_at_once", lambda source: True),
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_generator_that_training_draws_from_resumes_as_in_the_uninterrupted_run(tmp_path, name):
    assert list(misses(EXACT[name][0], tmp_path)) == []


@pytest.mark.parametrize("name", EXACT)
def test_generator_that_training_draws_from_differs_without_its_mechanism(tmp_path, monkeypatch, name):
    case, mechanism = EXACT[name]
    monkeypatch.setattr(*mechanism)
    assert next(misses(case, tmp_path), None) is not None


def verdicts(case: Case, where: Path) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """The state in each file, and what the resume from it says is not exact."""
    for number, path in enumerate(
        list(run(case, where / "straight", seed=1, **{**SOME_FILES, "save_interval": 4}).taken)[::4]
    ):
        said: list[str] = []

        class Telling(case.module):  # type: ignore[misc, name-defined]
            def on_train_start(self, said: list[str] = said) -> None:
                restorer = self._checkpointing.restorer
                said += [f"{it.part}: {it.why}" for it in restorer.verdicts if it.level != "exact"]

        run(Case(Telling, case.data), where / str(number), seed=2, ckpt_path=path, **NO_FILES)
        yield load(path)["checkpointable"], said


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (lambda: drawn(often=True), "sampler.generator"),
        (lambda: plain(batch_sampler=Drawing()), "batch_sampler.generator"),
    ],
    ids=["torch's sampler", "the user's sampler"],
)
def test_generator_of_an_order_drawn_bit_by_bit_that_training_draws_from_is_named(tmp_path, data, place):
    for state, said in verdicts(Case(module=Sharing, data=data), tmp_path):
        inside = state["ended"] == "batch"
        known = [f"train loader: {place}, a random generator, is drawn from elsewhere, too, so that the order cannot"]
        assert [it[: len(known[0])] for it in said] == known * inside
        assert (state["metadata"]["exactness"] == "exact") is not inside


@pytest.mark.parametrize("data", [lambda: drawn(often=True), lambda: plain(batch_sampler=Drawing())])
@pytest.mark.parametrize("workers", [0, 2])
def test_generator_that_only_an_order_draws_from_is_not_named(tmp_path, data, workers):
    def loader() -> DataLoader:
        return plain(num_workers=workers, **_samplers(data()))

    for state, said in verdicts(Case(data=loader), tmp_path):
        assert said == []
        assert state["metadata"]["exactness"] == "exact"


def _samplers(loader: DataLoader) -> dict[str, Sampler]:
    is_of_batches = isinstance(loader.batch_sampler, Drawing)
    return {"batch_sampler": loader.batch_sampler} if is_of_batches else {"sampler": loader.sampler}


def test_generator_that_the_module_makes_late_or_has_no_more_is_named(tmp_path):
    found = {}
    for state, said in verdicts(Case(module=Late), tmp_path):
        found[state["metadata"]["epoch"]] = said
    assert found[0] == []
    assert found[2] == ["random generator 'late': it does not exist here"]
