"""Why there is nothing to resume at a path, in words."""

from __future__ import annotations

import os
from collections.abc import Iterator

from checkpointable.catalog.scan import Found
from checkpointable.policy.names import SUFFIX
from checkpointable.storage import files
from checkpointable.storage.paths import is_remote, normalize_path


def why_nothing(path: str | os.PathLike[str], found: Found) -> str:
    """What is at a path where no checkpoint can be resumed from."""
    place = normalize_path(path)
    if not is_remote(place) and files.kind(place) is None:
        return f"{place} does not exist"
    there = list(_there(place, found))
    return f"no checkpoint in {place}" if not there else f"none in {place} can be resumed from: {', '.join(there)}"


def _there(place: str, found: Found) -> Iterator[str]:
    kinds = {
        "damaged": len(found.unreadable) + sum(not info.weights_only for info in found.infos),
        "with weights only": sum(info.weights_only for info in found.infos),
        "not written by checkpointable (pass such a file to fit itself)": found.others,
        "in shards, which is not supported yet": 0 if is_remote(place) else len(list(_sharded(place))),
    }
    return (f"{number} {kind}" for kind, number in kinds.items() if number)


def _sharded(place: str) -> Iterator[str]:
    """The directories that ``torch.distributed.checkpoint`` wrote."""
    for folder, _, names in os.walk(place):
        if folder.endswith(SUFFIX) and ".metadata" in names:
            yield folder
