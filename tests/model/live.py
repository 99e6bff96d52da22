"""One process that trains."""

from __future__ import annotations

from dataclasses import dataclass

from model.expected import Run
from model.fits import Fit
from model.process import Process


@dataclass(kw_only=True, eq=False)
class Live:
    """A process that trains: the real one and its model."""

    process: Process
    fit: Fit
    run: Run
