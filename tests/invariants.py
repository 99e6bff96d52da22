"""What has to be true of a directory of checkpoints at every moment, whatever was killed."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Collection, Iterator, Set
from pathlib import Path

import torch

from checkpointable import CheckpointableWarning, best, latest
from checkpointable.catalog.info import read_info
from checkpointable.policy.names import TEMPORARY_PREFIX
from checkpointable.policy.position import Position
from checkpointable.storage.format import verify


def assert_whole(directory: Path, *, damaged: Collection[Path] = ()) -> None:
    """Every file of a final name verifies, and every link leads to one; but for those that the test has damaged."""
    for path in directory.rglob("*.ckpt"):
        assert path.exists(), f"{path.name} leads to {os.readlink(path)}, which is not there"
        if path.resolve() in damaged:
            continue
        problem = verify.problem(path)
        assert problem is None, f"{path.name}: {problem}"
        torch.load(path, weights_only=True)


def assert_newest_is(directory: Path, name: str) -> Position:
    """The newest file that verifies is at least as new as that one was; loads; and tells where it stands."""
    found = latest(directory)
    assert found is not None, f"{name} was complete, and nothing is found"
    info = read_info(found)
    assert info.at >= position(name), f"{name} was complete, and {found} is found"
    content = torch.load(found, weights_only=True)
    assert content["checkpointable"]["position"] == dataclasses.asdict(info.at)
    return info.at


def assert_latest_is(directory: Path, expected: Path | None) -> None:
    """``latest`` finds this file. From the first completed save on there is one, unless others destroy it."""
    assert _found(latest, directory) == expected


def assert_best_is(directory: Path, expected: Path | None) -> None:
    """``best`` finds the best of the intact scored files."""
    assert _found(best, directory) == expected


def assert_files_are(directory: Path, expected: Set[str]) -> None:
    """Exactly these files are there, by their names in the directory; links do not count."""
    found = set(files(directory))
    assert found == expected, f"too many: {sorted(found - expected)}; missing: {sorted(expected - found)}"


def assert_only_gone(before: Set[str], after: Set[str], may_go: Set[str]) -> None:
    """Nothing of another run, nothing that the user wrote, and not the file resumed from was deleted."""
    assert before - after <= may_go, f"deleted, and must stay: {sorted(before - after - may_go)}"


def assert_links_lead_to_files(directory: Path, *, gone: Collection[Path] = ()) -> None:
    """Every link leads to a file that is there; but for those that others have deleted."""
    for link in links(directory):
        assert link.exists() or link.resolve() in gone, f"{link.name} leads to {os.readlink(link)}, which is not there"


def assert_link_leads_to(directory: Path, role: str, target: Path) -> None:
    """One of the links of this role leads to this file."""
    targets = {link.name: link.resolve() for link in links(directory) if link.name.startswith(role)}
    assert target in targets.values(), f"no link of {role} leads to {target.name}: {targets}"


def assert_no_leftovers(directory: Path) -> None:
    """No temporary file is there."""
    assert leftovers(directory) == set()


def position(name: str) -> Position:
    """By a name of the default template, of 6 batches an epoch; a best file stands at the end of its epoch."""
    numbers = [int(part) for part in Path(name).stem.split("-")[0].split("_") if part.isdigit()]
    epoch, batch = numbers if "batch" in name else (numbers[0], 6)
    return Position(epoch=epoch, batch=batch, step=6 * epoch + batch, batches=6 * epoch + batch)


def files(directory: Path) -> list[str]:
    """Checkpoint files at and below a directory, by their names in it; links left out."""
    found = (path for path in directory.rglob("*.ckpt") if not path.is_symlink())
    return sorted(str(path.relative_to(directory)) for path in found)


def links(directory: Path) -> Iterator[Path]:
    """The links to newest and best files."""
    return (path for path in directory.glob("*.ckpt") if path.is_symlink())


def leftovers(directory: Path) -> set[str]:
    """Temporary files."""
    return {path.name for path in directory.glob(f"{TEMPORARY_PREFIX}*.tmp")}


def _found(choose, directory: Path) -> Path | None:
    with warnings.catch_warnings(action="ignore", category=CheckpointableWarning):  # of damaged files
        found = choose(directory)
    return None if found is None else Path(found)
