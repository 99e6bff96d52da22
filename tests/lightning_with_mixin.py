"""A pytest plugin for Lightning's own tests: it makes the models of their demos modules with ``CheckpointingMixin``.

``docs/compatibility/lightning_tests.md`` has the commands and what they show. Our files lie in a directory of their
own, since many of those tests compare a whole directory with the files of a ``ModelCheckpoint``.
"""

from __future__ import annotations

import tempfile
from typing import Any

import lightning.pytorch.demos.boring_classes as demos

from checkpointable import CheckpointingMixin


def _saving(base: type) -> type:
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        super(made, self).__init__(*args, dirpath=tempfile.mkdtemp(prefix="checkpoints-"), **kwargs)

    members = {"__init__": init, "__module__": base.__module__, "__qualname__": base.__qualname__}
    made: type = type(base.__name__, (CheckpointingMixin, base), members)
    return made


for name in ("BoringModel", "ManualOptimBoringModel", "DemoModel"):
    setattr(demos, name, _saving(getattr(demos, name)))
