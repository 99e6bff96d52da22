"""What has to be true of a directory of checkpoints at every moment, whatever was killed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch

from checkpointable import latest
from checkpointable.catalog.info import read_info
from checkpointable.policy.position import Position
from checkpointable.storage.format import verify


def saved(record: Path) -> list[str]:
    """The files that got their final name, by a record of calls, in order."""
    if not record.exists():
        return []
    lines = [line.split(" ") for line in record.read_text().splitlines()]
    named = [Path(line[-1]) for line in lines if line[1] in ("link", "replace")]
    return [path.name for path in named if path.suffix == ".ckpt" and not path.name.startswith(("last", "best."))]


def assert_whole(directory: Path) -> None:
    """Every file of a final name verifies, and every link leads to one."""
    for path in directory.glob("*.ckpt"):
        assert path.exists(), f"{path.name} leads to {os.readlink(path)}, which is not there"
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


def position(name: str) -> Position:
    """By a name of the default template, of 6 batches an epoch; a best file stands at the end of its epoch."""
    numbers = [int(part) for part in Path(name).stem.split("-")[0].split("_") if part.isdigit()]
    epoch, batch = numbers if "batch" in name else (numbers[0], 6)
    return Position(epoch=epoch, batch=batch, step=6 * epoch + batch, batches=6 * epoch + batch)


def leftovers(directory: Path) -> set[str]:
    """Temporary files."""
    return {path.name for path in directory.glob(".checkpointable-*.tmp")}
