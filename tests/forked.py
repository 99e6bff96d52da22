"""Runs a script in a new process that need not import Lightning: it is forked from one that has, once for all tests.

Importing takes seconds of computing, and most such scripts train for less.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_OURS = ["checkpointable.module.checkpointing", "checkpointable.module.module", "checkpointable.resume.single_file"]
_CONTEXT.set_forkserver_preload(["lightning.pytorch", "pytorch_lightning", "torchmetrics", *_OURS])


def start(
    script: Path, *arguments: object, output: Path, stdin: Path | None = None, env: Mapping[str, str] | None = None
) -> BaseProcess:
    """Start it on one thread.

    Args:
        script: What is run.
        arguments: Of its command line.
        output: Gets what it writes to standard output, and ``output`` with ``.err`` what it writes to standard error.
        stdin: Its standard input; nothing if it is left out.
        env: Variables of the environment, beside those that the first test had.
    """
    places = (stdin or Path(os.devnull), output, errors_of(output))
    process = _CONTEXT.Process(target=_run, args=(str(script), [*map(str, arguments)], places, dict(env or {})))
    process.start()
    return process


def run_ranks(script: Path, *arguments: object, where: Path, ranks: int = 2) -> tuple[list[int | None], str]:
    """Run it as so many ranks of one machine; return their exit statuses, and what rank 0 wrote to standard error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "WORLD_SIZE": str(ranks)}
    outputs = [where / f"output_{rank}" for rank in range(ranks)]
    processes = [
        start(script, *arguments, output=output, env={**shared, "LOCAL_RANK": str(rank)})
        for rank, output in enumerate(outputs)
    ]
    for process in processes:
        process.join()
    return [process.exitcode for process in processes], errors_of(outputs[0]).read_text()


def printed(script: Path, *arguments: object, where: Path) -> list[Any]:
    """The lines of JSON that a script prints, which forks ranks itself."""
    process = start(script, *arguments, output=where / "output")
    process.join()
    assert process.exitcode == 0, errors_of(where / "output").read_text()[-5000:]
    return [json.loads(line) for line in (where / "output").read_text().splitlines() if line.startswith("{")]


def errors_of(output: Path) -> Path:
    """What a process wrote to standard error, whose standard output is there."""
    return output.with_name(f"{output.name}.err")


def _run(script: str, arguments: Sequence[str], places: Sequence[Path], env: Mapping[str, str]) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(env)
    for number, place in enumerate(places):
        opened = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY)
        os.dup2(opened, number)
    sys.stdin = os.fdopen(0)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    sys.argv = [script, *arguments]
    sys.path.insert(0, os.path.dirname(script))
    runpy.run_path(script, run_name="__main__")
