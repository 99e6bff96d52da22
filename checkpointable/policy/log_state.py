"""Where a run is logged: what a checkpoint says of each logger, so that a resumed run goes on there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LogState:
    """Where one logger logged when a checkpoint was made.

    Attributes:
        logger: The name of its class in Lightning.
        place: Where it looks for the run: its log directory from the root, the name of the experiment or the project.
        id: What the run is called there: a version, or the id that a service gave it.
        rows: How many rows it had logged; ``None`` where a log cannot be cut after a row.
        step: The highest step at which it had logged; ``None`` where that is not needed.
    """

    logger: str
    place: str
    id: int | str
    rows: int | None = None
    step: int | None = None
