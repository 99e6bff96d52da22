"""What the package is called, what it needs, and its extras. Tool settings are in pyproject.toml.

MANIFEST.in lists what the source distribution holds beside the package.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

REPOSITORY = ""  # where the source is published, as https://host/owner/name: links and project URLs follow from it

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "checkpointable" / "_version.py").read_text())
test = ["pytest>=8", "pytest-xdist>=3", "scikit-learn>=1.4", "jsonargparse[signatures]>=4.35", "matplotlib>=3.8"]
second_tree = "pytorch_lightning>=2.6.6,<2.7"  # the same classes under other names
test += [second_tree]
test += ["torchdata>=0.11"]  # a loader that saves its own position
test += ["torch-geometric>=2.6"]  # an example of a real project
test += ["hypothesis>=6.100"]  # histories of a directory
fast = ["isal>=1.7"]  # checksums in a seventh of the processor time
test += fast
test += ["moto[server]>=5", "s3fs>=2024.10"]  # an S3 server on this machine, and a client
test += ["tensorboard>=2.17"]  # reads what its logger has written
test += ["optuna>=4"]  # trials that are pruned
test += ["mlflow-skinny>=2.17", "sqlalchemy>=2", "alembic>=1.13"]  # MLflow's client, and its own SQLite store
export = ["safetensors>=0.5"]
cli = ["rich>=13.7"]  # colour; the command works without
test += export
docs = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"]
examples = ["scikit-learn>=1.4", "matplotlib>=3.8", "nbclient>=0.10", "ipykernel>=6", "optuna>=4"]


def long_description() -> str:
    """The README, without links that lead nowhere outside of the repository: they become absolute, or plain text."""
    target = rf"[\1]({REPOSITORY}/blob/main/\2)" if REPOSITORY else r"\1"
    return re.sub(r"\[([^\]]+)\]\((?!https?://|#)([^)\s]+)\)", target, (here / "README.md").read_text(encoding="utf-8"))


def project_urls() -> dict[str, str]:
    """What an index of packages shows beside the description."""
    pages = {
        "Source": "",
        "Documentation": "/tree/main/docs",
        "Changelog": "/blob/main/CHANGELOG.md",
        "Issues": "/issues",
    }
    return {name: REPOSITORY + page for name, page in pages.items()} if REPOSITORY else {}


setup(
    name="checkpointable",
    version=version.group(1) if version else "0",
    description="Exact, durable checkpoints for PyTorch Lightning: subclass, write compute_loss, kill it, resume.",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    url=REPOSITORY or None,
    project_urls=project_urls(),
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["checkpointable", "checkpointable.*"]),
    package_data={"checkpointable": ["py.typed"]},
    python_requires=">=3.11,<3.15",
    # lightning: 2.6.2 and 2.6.3 carried malware, and below 2.6.6 a checkpoint can execute code when it is loaded
    # (GHSA-qqmf-gpg7-g8gw). The safe points depend on private loops, so each new minor version has to be tested first.
    install_requires=["lightning>=2.6.6,<2.7", "torch>=2.6", "torchmetrics>=1.4"],
    entry_points={"console_scripts": ["checkpointable = checkpointable.cli.main:main"]},
    extras_require={
        "pytorch_lightning": [second_tree],
        "remote": ["s3fs>=2024.10", "gcsfs>=2024.10"],
        "plot": ["matplotlib>=3.8"],
        "fast": fast,
        "docs": docs,
        "export": export,
        "cli": cli,
        "examples": examples,
        "browser": ["playwright>=1.50"],  # tests of pages, with a Chromium of the system
        "test": test,
        "dev": [*test, *examples, *docs, "ruff==0.17.6", "mypy==2.4.1"],
    },
    classifiers=[
        "Framework :: Jupyter",
        "Typing :: Typed",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ]
    + [f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 15)],
)
