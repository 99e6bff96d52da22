"""What the commands say about one checkpoint, and how they look for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from checkpointable._errors import CheckpointFileError
from checkpointable.catalog import select
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import Found
from checkpointable.catalog.unusable import why_nothing
from checkpointable.storage.paths import is_remote, normalize_paths


def as_json(info: CheckpointInfo) -> dict[str, Any]:
    """One checkpoint, as it is in every answer with ``--json``."""
    return {
        "path": info.path,
        "kind": info.kind,
        "reasons": list(info.reasons),
        "epoch": info.epoch,
        "batch": info.batch,
        "step": info.step,
        "batches": info.batches,
        "metrics": dict(info.metrics),
        "monitor": info.monitor,
        "mode": info.mode,
        "score": info.score,
        "created": info.created,
        "size": info.size,
        "run_id": info.run_id,
        "attempt": info.lineage.attempt,
        "generation": info.generation,
        "resumed_from": info.resumed_from,
        "exactness": info.exactness,
        "weights_only": info.weights_only,
        "weights": info.weights,
    }


def name(path: str, places: Sequence[str]) -> str:
    """A path as it reads below the place it was looked for: relative to it, if that is a directory."""
    for it in normalize_paths(places):
        root = it if is_remote(it) else os.path.join(it, "")
        if path.startswith(root) and path != root:
            return path[len(root) :].lstrip("/")
    return path


def newest(places: Sequence[str]) -> select.Choice:
    """The newest intact checkpoint that can be resumed from; the others that came first, with the reasons."""
    choice, found = select.choose(list(places), select.newest)
    return _chosen(choice, found, places)


def best_or_newest(places: Sequence[str], *, last: bool) -> select.Choice:
    """The best intact checkpoint; the newest with ``last``, or where none has a score. A file is itself."""
    choice, found = select.choose(list(places), _weights if last else _best_or_newest)
    return _chosen(choice, found, places)


def _best_or_newest(found: Found) -> select.Choice:
    choice = select.best_of(found)
    return choice if choice.info is not None or choice.skipped else _weights(found)


def _weights(found: Found) -> select.Choice:
    """The newest, also of those that hold weights only."""
    choice = select.newest(found)
    if choice.info is None and not any(not info.weights_only for info in found.infos):
        return select.Choice(info=found.infos[-1] if found.infos else None, skipped={}, notes=choice.notes)
    return choice


def _chosen(choice: select.Choice, found: Found, places: Sequence[str]) -> select.Choice:
    choice.warn(stacklevel=4)
    if choice.info is None and not choice.skipped:
        raise CheckpointFileError(f"{why_nothing(list(places), found)}. Pass a directory with checkpoints, or one.")
    if choice.info is None:
        raise CheckpointFileError("none of the checkpoints there can be used. Pass the path of an intact one.")
    return choice
