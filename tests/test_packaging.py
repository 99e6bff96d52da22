"""What is in the wheel and in the source distribution, built in the way in which pip builds them, and offline."""

from __future__ import annotations

import ast
import email
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("checkpointable", "tests", "examples", "notebooks", "docs", "benchmarks")
TOP = {
    *("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
    *("constraints.txt", ".ci/run"),
}
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
BROUGHT = {
    "filelock",
    "fsspec",
    "numpy",
    "packaging",
    "tqdm",
    "lightning_utilities",
    "typing_extensions",
}  # by those required
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


def copy_of_the_source(where: Path) -> Path:
    """What is under version control, or would be: no caches, nothing that was built."""
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    for part in PARTS:
        shutil.copytree(ROOT / part, where / part, ignore=left_out)
    for name in TOP:
        (where / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, where / name)
    return where


def build(source: Path, kind: str, to: Path) -> Path:
    """The file that ``pip`` gets of the build, in the environment at hand."""
    to.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", "-c", BUILD.format(kind=kind), str(to)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return to / done.stdout.split()[-1]


def names_in(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as opened:
        return {member.name.partition("/")[2] for member in opened if member.isfile()}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(copy_of_the_source(tmp_path_factory.mktemp("source")), "sdist", tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Built of the source distribution alone."""
    with tarfile.open(sdist) as opened:
        opened.extractall(sdist.parent / "unpacked", filter="data")
    (source,) = (sdist.parent / "unpacked").iterdir()
    return build(source, "wheel", sdist.parent)


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith("/METADATA"))
        return email.message_from_bytes(opened.read(name))


def test_sdist_has_every_file_of_the_source(sdist, tmp_path):
    source = copy_of_the_source(tmp_path / "source")
    expected = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert expected - names_in(sdist) == set()
    assert {name for name in names_in(sdist) - expected if "egg-info" not in name} == {"PKG-INFO", "setup.cfg"}


def test_sdist_without_the_manifest_lacks_files(tmp_path):
    """The twin."""
    source = copy_of_the_source(tmp_path / "source")
    (source / "MANIFEST.in").unlink()
    found = names_in(build(source, "sdist", tmp_path / "dist"))
    assert {"CHANGELOG.md", "constraints.txt", "examples/with_checkpointable.py", "docs/arguments.md"}.isdisjoint(found)


def test_wheel_brings_the_command(wheel):
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith("/entry_points.txt"))
        assert "checkpointable = checkpointable.cli.main:main" in opened.read(name).decode().splitlines()


def test_wheel_has_the_whole_package_and_nothing_else(wheel):
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "checkpointable").rglob("*.py")}
    with zipfile.ZipFile(wheel) as opened:
        found = {name for name in opened.namelist() if ".dist-info/" not in name}
        licenses = [name for name in opened.namelist() if name.endswith("licenses/LICENSE")]
    assert found == package | {"checkpointable/py.typed"}
    assert len(licenses) == 1


def test_metadata_has_the_license_as_spdx_and_what_is_required(metadata):
    assert (metadata["License-Expression"], metadata["License-File"], metadata["License"]) == (
        "Apache-2.0",
        "LICENSE",
        None,
    )
    required = {re.split(r"[<>=!;\[ ]", it)[0] for it in metadata.get_all("Requires-Dist") if "extra ==" not in it}
    assert required == {"lightning", "torch", "torchmetrics"}


def test_package_imports_only_what_is_required_or_brought_by_it_or_an_extra():
    found = set()
    for path in (ROOT / "checkpointable").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {module.partition(".")[0] for module in modules}
    ours = {"lightning", "torch", "torchmetrics", "checkpointable", *BROUGHT}
    assert found - ours - set(sys.stdlib_module_names) == {
        *("isal", "matplotlib", "mlflow", "pytorch_lightning", "rich", "safetensors")
    }


def test_description_has_no_link_that_leads_nowhere_outside_of_the_repository(metadata):
    text = metadata.get_payload()
    assert [target for _, target in LINK.findall(text) if not target.startswith(("https://", "#"))] == []
    assert text.count("```") == (ROOT / "README.md").read_text(encoding="utf-8").count("```")
    assert LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))[-1] == ("changelog", "CHANGELOG.md")
    assert " changelog. Apache-2.0" in " ".join(text.split())


def test_published_source_makes_links_absolute_and_gives_project_urls(tmp_path):
    source = copy_of_the_source(tmp_path / "source")
    setup = source / "setup.py"
    text = setup.read_text(encoding="utf-8")
    setup.write_text(text.replace('REPOSITORY = ""', 'REPOSITORY = "https://example.org/a/b"'), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "--long-description", "--url"],
        cwd=source, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert "[changelog](https://example.org/a/b/blob/main/CHANGELOG.md)" in done.stdout
    assert "\nhttps://example.org/a/b\n" in done.stdout
