"""The law for random generators that the training draws from: the module's own, and those that it shares with an order.

An order is drawn again at a resume. Where something else has drawn from its generator in between, that gives another
one, unless the order had been drawn at once. So these cases are exact, or the line at the resume names the generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from nets import load
from owned import SIZE, Augmented, Drawing, Draws, Seen, digits, plain
from test_owned import NO_FILES, SOME_FILES, Case, misses, run
from torch.utils.data import DataLoader, RandomSampler, Sampler, Subset, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from checkpointable.resume import index_batches, module_rng, owned_rng
from checkpointable.resume.loader_position import LoaderPosition

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


class Both(Seen):
    """Trains on the batches of two loaders."""

    def compute_loss(self, batch: Any) -> torch.Tensor:
        parts = batch.values() if isinstance(batch, dict) else [batch]
        return sum(super(Both, self).compute_loss(part) for part in parts if part is not None)


def short_and_long(kind: type[DataLoader] = DataLoader, **options: Any) -> CombinedLoader:
    """A loader that ends before the other does. After its last index, its sampler draws once more."""
    sampler = RandomSampler(digits(6), generator=torch.Generator().manual_seed(4))
    short = kind(digits(6), sampler=sampler, batch_size=3, **options)
    return CombinedLoader({"long": drawn(often=False), "short": short}, "max_size")


def ended(data: Callable[[], CombinedLoader], **saving: Any) -> Case:
    options = {"max_epochs": 2, "limit_train_batches": 4}
    return Case(Both, data, options=options, saving={**SOME_FILES, "save_interval": 1, **saving}, every=1)


def _go_forward_before_the_end(position: LoaderPosition, delivered: int) -> Any:
    was, position.exhausted = position.exhausted, False
    iterator = GO_FORWARD(position, delivered)
    position.exhausted = was
    return iterator


GO_FORWARD = LoaderPosition._go_forward

EXACT: dict[str, tuple[Case, tuple[Any, str, Any]]] = {
    "of the module": (Case(module=Owning), (module_rng, "restore", lambda *_: None)),
    "of an order drawn at once": (
        Case(module=Sharing, data=lambda: drawn(often=False)),
        (owned_rng.Owners, "restore", lambda *_: None),
    ),
    "of an order that has ended": (
        ended(short_and_long),
        (LoaderPosition, "_go_forward", _go_forward_before_the_end),
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


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("kind", [DataLoader, StatefulDataLoader])
@pytest.mark.parametrize("workers", [0, 2])
def test_order_that_ended_earlier_than_another_resumes_as_in_the_uninterrupted_run(tmp_path, kind, workers, drop_last):
    def loader() -> CombinedLoader:
        return short_and_long(kind, num_workers=workers, drop_last=drop_last)

    assert list(misses(ended(loader), tmp_path)) == []


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
        (lambda: drawn(often=True), "batch_sampler.sampler.generator"),
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


class Chunks(Sampler):
    """Draws some indices at a time, from a generator of the data set that each sample draws from, too."""

    def __init__(self, samples: Augmented) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return SIZE

    def __iter__(self) -> Iterator[int]:
        for _ in range(3):
            yield from torch.randint(
                SIZE, (SIZE // 3,), generator=self.samples.transforms["train"][0].generator
            ).tolist()


class Based(Sampler):
    """Keeps a data set whose samples draw, and draws its own order from another generator."""

    def __init__(self, base: Augmented) -> None:
        self.base, self.generator = base, torch.Generator().manual_seed(2)

    def __len__(self) -> int:
        return SIZE

    def __iter__(self) -> Iterator[int]:
        return (int(torch.randint(SIZE, (), generator=self.generator)) for _ in range(SIZE))


def augmented() -> Augmented:
    return Augmented(
        digits(), Draws(torch.Generator().manual_seed(3), lambda own: float(torch.rand((), generator=own)))
    )


def test_order_drawn_from_the_generator_of_its_data_set_is_named(tmp_path):
    def data() -> DataLoader:
        samples = augmented()
        return plain(samples, sampler=Chunks(samples))

    for state, said in verdicts(Case(data=data), tmp_path):
        assert [it.split(", which")[0].split(",")[0] for it in said] == [
            "train loader: dataset.transforms.train.0.generator"
        ] * (state["ended"] == "batch")


def test_generator_of_a_data_set_that_a_sampler_keeps_is_not_named(tmp_path):
    def data() -> DataLoader:
        base = augmented()
        return plain(Subset(base, range(SIZE)), sampler=Based(base))

    assert list(misses(Case(data=data), tmp_path)) == []
    assert all(said == [] for _, said in verdicts(Case(data=data), tmp_path / "again"))


class Raising(Mapping):
    """Raises what a configuration raises that has no value for a key."""

    def __getitem__(self, key: str) -> Any:
        raise ValueError(f"missing value: {key}")

    def __iter__(self) -> Iterator[str]:
        return iter(["width"])

    def __len__(self) -> int:
        return 1


class Odd(Owning):
    """Keeps generators in private containers, beside a configuration that raises."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.configuration = Raising()
        self._noise = {"a.b": random.Random(1), "a": {"b": random.Random(2)}}

    def draw(self) -> float:
        return self._noise["a.b"].random() - self._noise["a"]["b"].random()


def test_generators_in_private_containers_resume_and_keep_their_places(tmp_path):
    assert list(misses(Case(module=Odd), tmp_path)) == []
    assert all(said == [] for _, said in verdicts(Case(module=Odd), tmp_path / "again"))


class Model(Sampler):
    """Keeps the module that is trained."""

    module: Any = None

    def __len__(self) -> int:
        return SIZE

    def __iter__(self) -> Iterator[int]:
        return iter(range(SIZE))


def test_sampler_that_keeps_the_module_is_no_reason_to_end_the_training(tmp_path):
    class Kept(Seen):
        def on_fit_start(self) -> None:
            self.trainer.fit_loop._data_source.instance.sampler.module = self

    assert list(misses(Case(module=Kept, data=lambda: plain(sampler=Model())), tmp_path)) == []


@pytest.mark.parametrize("raised_at", range(1, 5))
def test_sampler_that_ends_while_a_worker_raises_is_exact_or_named(tmp_path, raised_at):
    class Failing(TensorDataset):
        fails = True

        def __getitem__(self, index: int) -> Any:
            if self.fails and index == at:
                raise ValueError("broken")
            return super().__getitem__(index)

    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(3)).tolist()
    at = order[raised_at * 3]

    def data(*, fails: bool) -> DataLoader:
        samples = Failing(*digits().tensors)
        samples.fails = fails
        sampler = RandomSampler(samples, generator=torch.Generator().manual_seed(3))
        return plain(samples, sampler=sampler, num_workers=2)

    straight = run(Case(data=lambda: data(fails=False)), tmp_path / "straight", seed=1, **NO_FILES)
    with pytest.raises(ValueError, match="broken"):
        run(Case(data=lambda: data(fails=True)), tmp_path / "failed", seed=1, **NO_FILES)
    (path,) = (tmp_path / "failed").glob("epoch_0_batch_*.ckpt")
    resumed = run(Case(data=lambda: data(fails=False)), tmp_path / "resumed", seed=2, ckpt_path=str(path), **NO_FILES)
    is_exact = load(path)["checkpointable"]["metadata"]["exactness"] == "exact"
    assert not is_exact or resumed.final["weights"] == straight.final["weights"]
