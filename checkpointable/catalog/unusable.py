"""Why there is nothing to resume at a path, in words."""

from __future__ import annotations

import os
from collections.abc import Iterator

from checkpointable.catalog.scan import Found
from checkpointable.policy.names import SUFFIX
from checkpointable.storage import files
from checkpointable.storage.format.shards import MARKER
from checkpointable.storage.paths import is_remote, normalize_path

_WRITTEN_LAST = "meta.pt"  # by Lightning, after torch has written the shards
_SHOWN = 3


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
        "in shards (pass such a directory to fit itself)": len(list(_sharded(place))),
    }
    return (f"{number} {kind}" for kind, number in kinds.items() if number)


def passed_over(path: str | os.PathLike[str], since: float) -> str:
    """Names the checkpoints in shards at a path that are newer; ``""`` if there are none."""
    newer = [(when, folder) for folder, when in _sharded(normalize_path(path)) if when > since]
    named = [folder for _, folder in sorted(newer, reverse=True)]
    if not named:
        return ""
    others = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return (
        "passed over, as nothing shows that these checkpoints in shards are intact:"
        f" {', '.join(named[:_SHOWN])}{others}. To resume from one, pass its path to fit."
    )


def _sharded(place: str) -> Iterator[tuple[str, float]]:
    """The local directories in shards that others have saved, with the time when each was finished."""
    if is_remote(place):
        return
    for folder, _, names in os.walk(place):
        if folder.endswith(SUFFIX) and {".metadata", _WRITTEN_LAST} <= set(names) and MARKER not in names:
            yield folder, os.path.getmtime(os.path.join(folder, _WRITTEN_LAST))
