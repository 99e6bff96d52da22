"""Why there is nothing to resume at a path, in words."""

from __future__ import annotations

import os
from collections.abc import Iterator

from checkpointable.catalog.scan import Found
from checkpointable.policy.names import SUFFIX
from checkpointable.storage import files
from checkpointable.storage.format.shards import MARKER, REST
from checkpointable.storage.paths import Paths, is_remote, normalize_paths

_SHOWN = 3


def why_nothing(path: Paths, found: Found) -> str:
    """What is at a path or several where no checkpoint can be resumed from."""
    places = normalize_paths(path)
    if len(places) == 1 and not is_remote(places[0]) and files.kind(places[0]) is None:
        return f"{places[0]} does not exist"
    there, named = list(_there(places, found)), " or ".join(places)
    return f"no checkpoint in {named}" if not there else f"none in {named} can be resumed from: {', '.join(there)}"


def _there(places: list[str], found: Found) -> Iterator[str]:
    kinds = {
        "damaged": len(found.unreadable) + sum(not info.weights_only for info in found.infos),
        "with weights only": sum(info.weights_only for info in found.infos),
        "not written by checkpointable (pass such a file to fit itself)": found.others,
        "in shards (pass such a directory to fit itself)": sum(len(list(_sharded(place))) for place in places),
    }
    return (f"{number} {kind}" for kind, number in kinds.items() if number)


def passed_over(path: Paths, since: float) -> str:
    """Names the checkpoints in shards at a path or several that are newer; ``""`` if there are none."""
    sharded = (it for place in normalize_paths(path) for it in _sharded(place))
    newer = [(when, folder) for folder, when in sharded if when > since]
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
        if folder.endswith(SUFFIX) and {".metadata", REST} <= set(names) and MARKER not in names:
            yield folder, os.path.getmtime(os.path.join(folder, REST))
