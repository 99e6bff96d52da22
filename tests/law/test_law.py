"""The law: a run resumed from any of its files equals the uninterrupted run to the last bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from doors import DOORS, SECOND
from runs import Config, combinations, misses

pytestmark = pytest.mark.filterwarnings("ignore")

COMMON = [
    Config(),
    Config(workers=2),
    Config(workers=2, persistent=True, validation="half"),
    Config(sampler="lazy", accumulate=3),
    Config(sampler="unsized", validation="every"),
    Config(sampler="sized", workers=2, persistent=True),
    Config(sampler="stateful", scheduler="step"),
    Config(sampler="torchdata", workers=2, scheduler="plateau"),
    Config(sampler="torchdata_unsized", validation="every"),
    Config(sampler="init", workers=2),
    Config(sampler="stateful", loaders="max_size"),
    Config(sampler="torchdata_sized", loaders="max_size", source="module", reload=1),
    Config(sampler="torchdata_unsized", loaders="cycle"),
    Config(sampler="unsized", loaders="max_size"),
    Config(loaders="cycle", scheduler="plateau_step", validation="across"),
    Config(optimization="manual", source="datamodule", patience=1),
    Config(source="module", reload=2, limit="max_steps", seeded=False),
    Config(sampler="generator", precision="bf16-mixed", clip=0.5, validation="second"),
]


@pytest.mark.parametrize("config", COMMON, ids=str)
def test_resumed_run_is_the_uninterrupted_run(tmp_path, config):
    tried, found = misses(config, tmp_path, files=4)
    assert tried >= 4
    assert found == []


DOORS_BY_DEFAULT = [
    Config(door=f"module of {SECOND}", workers=2, accumulate=3, validation="half"),
    Config(door="callback", patience=1, scheduler="plateau", source="module", reload=2),
    Config(door=f"callback of {SECOND}", sampler="unsized", validation="every", optimization="manual"),
]


@pytest.mark.parametrize("config", DOORS_BY_DEFAULT, ids=str)
def test_run_of_every_door_resumed_is_the_uninterrupted_run(tmp_path, config):
    tried, found = misses(config, tmp_path, files=4)
    assert tried >= 4
    assert found == []


@pytest.mark.sweep
@pytest.mark.parametrize("config", [replace(it, door=door) for door in DOORS[1:] for it in COMMON], ids=str)
def test_sweep_common_configurations_of_every_door(tmp_path, config):
    assert misses(config, tmp_path)[1] == []


@pytest.mark.parametrize("config", combinations(3), ids=str)
def test_resumed_run_of_any_combination_is_the_uninterrupted_run(tmp_path, config):
    assert misses(config, tmp_path, files=4)[1] == []


@pytest.mark.sweep
@pytest.mark.parametrize("config", combinations(240), ids=str)
def test_sweep_every_file_of_every_combination(tmp_path, config, record_property):
    tried, found = misses(config, tmp_path)
    record_property("law", (tried, len(found)))
    assert found == []
