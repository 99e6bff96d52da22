"""Training scripts of real projects are killed three times, and resume under other seeds as the run without a stop.

Each is the project's own example, with the line that adds checkpointable. Two run in the default tests, with the
packages of this interpreter. ``python -m pytest -m projects`` runs all others, each in an environment of its own, which
is built of ``requirements.txt`` under ``$PROJECTS_ENVIRONMENTS`` or pytest's cache.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from harness import HERE, KILLS, compare, environment, forks, new_interpreters

ROOT = HERE.parent.parent
LIGHT = ("pyg", "torchmetrics")  # they need only what the tests need anyway, or little more
NO_VALIDATION = ("gluonts", "lightly")
DOCUMENT = "docs/compatibility/projects.md"
DIFFERING = {"gluonts": ["losses", "weights", "optimizers", "schedulers"]}  # DOCUMENT says why

PACKAGES = {
    "forecasting": "pytorch-forecasting",
    "pyg": "torch-geometric",
    "scvi": "scvi-tools",
}  # whose names are not the directory's
PROJECTS = sorted(path.parent.name for path in HERE.glob("*/train.py"))


@pytest.fixture
def cache(request):
    given = os.environ.get("PROJECTS_ENVIRONMENTS")
    return Path(given) if given else request.config.cache.mkdir("projects")


@pytest.fixture(scope="module")
def light(request):
    """A project, and what runs its script in forks of one process."""
    if request.param == "pyg":
        pytest.importorskip("torch_geometric")
    with forks(request.param) as launch:
        yield request.param, launch


@pytest.mark.parametrize("light", LIGHT, indirect=True)
def test_light_project_killed_three_times_is_the_run_without_a_stop(tmp_path, light):
    assert compare(*light, tmp_path).differing == []


@pytest.mark.parametrize("light", ["torchmetrics"], indirect=True)
def test_project_killed_with_other_random_numbers_is_another_run(tmp_path, light):
    """The twin."""
    found = compare(*light, tmp_path, kills=KILLS[:1], twin="other randomness")
    assert {"losses", "weights", "random numbers"} <= set(found.differing)


@pytest.mark.projects
@pytest.mark.parametrize("name", [name for name in PROJECTS if name != "torchmetrics"])
def test_project_killed_three_times_is_the_run_without_a_stop(tmp_path, cache, name):
    launch = new_interpreters(environment(name, cache), name)
    kills = ("train 5", "train 6", "train 7") if name in NO_VALIDATION else KILLS
    found = compare(name, launch, tmp_path, kills)
    assert found.differing == DIFFERING.get(name, [])
    assert bool(found.differing) == any("approximate" in line for line in found.said)
    assert not any("not the same run" in line for line in found.said)


@pytest.mark.parametrize("name", PROJECTS)
def test_document_names_the_version_that_is_tested(name):
    pinned = ROOT / "constraints.txt" if name == "torchmetrics" else HERE / name / "requirements.txt"
    document = (ROOT / DOCUMENT).read_text("utf-8")
    [row] = re.findall(rf"^\| .*\]\(\.\./\.\./tests/projects/{name}/train\.py\).*$", document, re.M)
    project, version = (cell.strip() for cell in row.split("|")[1:3])
    package = PACKAGES.get(name, name)
    assert f"\n{package}=={version}\n" in f"\n{pinned.read_text('utf-8')}", project


def test_readme_has_the_projects_of_the_document_with_their_results():
    readme, document = ((ROOT / name).read_text("utf-8") for name in ("README.md", DOCUMENT))
    exact = re.findall(r"^\| (.*) \| exact \|$", readme, re.M)[0].split(", ")
    others = re.findall(r"^\| (.*) \| not exact,", readme, re.M)
    rows = re.findall(r"^\| \[(.*)\]\(.*\| (exact|not exact)[^|]* \|$", document, re.M)
    assert [(name, "exact") for name in exact] == [row for row in rows if row[1] == "exact"]
    assert [(name, "not exact") for name in others] == [row for row in rows if row[1] == "not exact"]
