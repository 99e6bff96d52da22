"""Records every fit of a process that has this directory on its path, and kills the process where it is told to.

Lightning adds the callback to each ``Trainer`` through this directory's entry points, so a project's script stays as it
is. It records only if ``PROJECTS_RECORD`` is set, to the directory that receives ``record.txt``, a line for each batch
and validation, and ``final.json``, a hash of each part of the state at the end. ``PROJECTS_KILL`` names the moment of
the kill: a kind of line, how many lines of it this process has recorded, and the seconds until SIGKILL from then on.
``PROJECTS_TWIN="other randomness"`` makes the resume forget the random states.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

DEADLINE_SECONDS = 120  # for the first checkpoint


def of_lightning() -> list[Any]:
    """The recorder for a trainer of ``lightning.pytorch``."""
    from lightning.pytorch import Callback

    return recorders(Callback)


def of_pytorch_lightning() -> list[Any]:
    """The recorder for a trainer of ``pytorch_lightning``."""
    from pytorch_lightning import Callback

    return recorders(Callback)


def recorders(callback: type) -> list[Any]:
    where = os.environ.get("PROJECTS_RECORD")
    if os.environ.get("PROJECTS_TWIN") == "other randomness":
        forget_random_states()
    return [] if where is None else [type("Recorder", (RecorderHooks, callback), {})(Path(where))]


def forget_random_states() -> None:
    """Break what a resume restores, without its notice, for a test that has to fail then."""
    from checkpointable.resume import evidence, rng

    rng.restore = lambda states: None
    evidence.same = lambda saved, now: True


class RecorderHooks:
    """Hooks of a ``Callback`` of either tree."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.file = (where / "record.txt").open("a")
        self.kill = os.environ.get("PROJECTS_KILL", "").split()
        self.counts: dict[str, int] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.write("start", f"of process {os.getpid()}", [trainer.global_step])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        values = [None if loss is None else float(loss).hex()]
        self.write("train", f"{trainer.current_epoch} {batch_idx} {trainer.global_step}", values)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        if not trainer.sanity_checking:
            self.kill_if_due("validation")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            values = [f"{name}={float(value).hex()}" for name, value in sorted(trainer.callback_metrics.items())]
            self.write("validated", f"{trainer.current_epoch} {trainer.global_step}", values)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        (self.where / "final.json").write_text(json.dumps(final_state(trainer, pl_module), indent=1))

    def write(self, kind: str, position: str, values: list[Any]) -> None:
        self.file.write(f"{kind} {position}: {' '.join(map(str, values))}\n")
        self.file.flush()
        self.kill_if_due(kind)

    def kill_if_due(self, kind: str) -> None:
        """At the named moment, wait until a checkpoint exists, and let the SIGKILL come while training goes on."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.kill and (kind, self.counts[kind]) == (self.kill[0], int(self.kill[1])):
            wait_for_checkpoint(self.where)
            threading.Thread(target=kill_after, args=(float(self.kill[2]),), daemon=True).start()


def wait_for_checkpoint(where: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not any(where.rglob("*.ckpt")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no checkpoint in {where} after {DEADLINE_SECONDS} s")
        time.sleep(0.01)


def kill_after(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def final_state(trainer: Any, module: Any) -> dict[str, str]:
    """A hash of each part of the state in which the training ended."""
    import numpy as np
    import torch

    parts = {
        "weights": module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "random numbers": [random.getstate(), np.random.get_state(), torch.get_rng_state()],
    }
    return {name: sha256(part) for name, part in parts.items()}


def sha256(value: Any) -> str:
    found = hashlib.sha256()
    add(found, value)
    return found.hexdigest()


def add(found: Any, value: Any) -> None:
    """Add the bits of a state, whatever order its mappings were filled in."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        found.update(f"{value.dtype} {tuple(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray):
        found.update(value.tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            found.update(repr(key).encode())
            add(found, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            add(found, item)
    elif isinstance(value, bool | int | float | str | type(None)):
        found.update(repr(value).encode())
    else:
        found.update(pickle.dumps(value))
