"""The twins of the law: without any one of its mechanisms it fails. With all of them it holds (test_law.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from runs import Config, misses

from checkpointable.lightning_internals import combined_loader, logged
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.loops import _ObservedEpochLoop
from checkpointable.resume import index_batches, loader_position, module_state, owned_rng, restorer
from checkpointable.saving import run_state
from checkpointable.saving.session import Session
from checkpointable.saving.steps import Steps

pytestmark = pytest.mark.filterwarnings("ignore")

Patch = pytest.MonkeyPatch


def nothing(*_: Any, **__: Any) -> None:
    """Replaces a mechanism."""


def without_random_states(patch: Patch) -> None:
    class Kept:
        restore = staticmethod(nothing)

    patch.setattr(restorer, "rng", Kept)


def without_positions(patch: Patch) -> None:
    patch.setattr(loader_position.LoaderPosition, "resume_at", nothing)


def without_worker_seeds(patch: Patch) -> None:
    patch.setattr(index_batches, "SeededIndices", lambda indices, seed: indices)


def without_running_means(patch: Patch) -> None:
    patch.setattr(logged, "restore", nothing)


def without_metrics(patch: Patch) -> None:
    patch.setattr(logged, "restore_metrics", nothing)


def without_plateau_handling(patch: Patch) -> None:
    plain = _ObservedEpochLoop.reset

    def reset(loop: Any) -> None:
        restarting = loop.trainer.fit_loop._restarting
        plain(loop)
        loop.trainer.fit_loop._restarting = restarting

    patch.setattr(_ObservedEpochLoop, "reset", reset)


def without_windows(patch: Patch) -> None:
    patch.setattr(Steps, "in_window", lambda steps, trainer: False)
    patch.setattr(module_state, "capture_gradients", lambda module: {})


def without_gradients_of_windows(patch: Patch) -> None:
    patch.setattr(module_state, "restore_gradients", nothing)


def without_own_generators(patch: Patch) -> None:
    patch.setattr(owned_rng.Owners, "restore", nothing)


def without_clean_restarts(patch: Patch) -> None:
    original = run_state._restore

    def restore(session: Session, *args: Any, **kwargs: Any) -> None:
        original(session, *args, **kwargs)
        session.resumes_after = None

    patch.setattr(run_state, "_restore", restore)


def without_reloaded_epochs(patch: Patch) -> None:
    patch.setattr(internals, "set_reloaded_epochs", nothing)


def without_stops(patch: Patch) -> None:
    patch.setattr(internals, "stopped_early", lambda trainer: False)


def without_draws_of_their_own(patch: Patch) -> None:
    patch.setattr(index_batches, "draws_at_once", lambda source: True)


def without_read_ahead(patch: Patch) -> None:
    patch.setattr(loader_position.LoaderPosition, "ahead", property(lambda position: False, nothing), raising=False)


def without_ends(patch: Patch) -> None:
    patch.setattr(loader_position.LoaderPosition, "exhausted", property(lambda position: False, nothing), raising=False)


def without_ends_of_cycles(patch: Patch) -> None:
    patch.setattr(combined_loader, "set_consumed", nothing)


TWINS: list[tuple[Callable[[Patch], None], Config]] = [
    (without_random_states, Config(sampler="sequential")),
    (without_positions, Config(sampler="sequential")),
    (without_worker_seeds, Config(workers=2)),
    (without_running_means, Config()),
    (without_metrics, Config()),
    (without_plateau_handling, Config(scheduler="plateau")),
    (without_windows, Config(accumulate=3)),
    (without_gradients_of_windows, Config(accumulate=3, validation="every")),
    (without_own_generators, Config(sampler="generator")),
    (without_clean_restarts, Config(validation="half", scheduler="step")),
    (without_reloaded_epochs, Config(source="module", reload=2)),
    (without_stops, Config(sampler="weighted", patience=1, validation="every")),
    (without_draws_of_their_own, Config(sampler="lazy", workers=1)),
    (without_read_ahead, Config(sampler="unsized")),
    (without_ends, Config(sampler="stateful", loaders="max_size")),
    (without_ends_of_cycles, Config(sampler="unsized", loaders="cycle")),
]


@pytest.mark.parametrize(("switch_off", "config"), TWINS, ids=[twin.__name__ for twin, _ in TWINS])
def test_law_without_the_mechanism_fails(tmp_path, monkeypatch, switch_off, config):
    switch_off(monkeypatch)
    assert misses(config, tmp_path, files=5)[1] != []
