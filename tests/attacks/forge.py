"""A process that imports everything once and forks a child for each training, so that a child lives in a moment.

It forks before torch has started a thread of its own, and gives its children one thread for computing.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
_DEADLINE_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child ended.

    Attributes:
        code: Its exit status; below zero: the signal that killed it.
        result: What its function returned; ``None`` if it was killed.
        errors: What it wrote to its standard error.
    """

    code: int
    result: Any
    errors: str


class Child:
    """A child that runs."""

    def __init__(self, forge: Forge, pid: int, place: Path) -> None:
        self.pid = pid
        self._forge = forge
        self._place = place

    def kill(self) -> None:
        """Kill it; no harm if it has ended already, since the forge has not yet asked for it."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> Ended:
        """Wait for its end."""
        code = self._forge.ask({"wait": self.pid})
        result = self._place / "result.json"
        found = json.loads(result.read_text()) if result.exists() else None
        return Ended(code=code, result=found, errors=(self._place / "stderr.txt").read_text())


class Forge:
    """Starts children. What they do is a function of a module in this folder; what it returns is plain.

    Args:
        root: For what children say.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | threads,
        )

    def ask(self, what: dict[str, Any]) -> Any:
        """Say something to the forge, and hear its answer."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(what) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the forge has died"
        return json.loads(answer)

    def start(self, function: str, **arguments: Any) -> Child:
        """Start a child: ``module:function`` with these arguments, paths as strings."""
        self._count += 1
        place = self._root / str(self._count)
        place.mkdir()
        return Child(self, self.ask({"function": function, "arguments": arguments, "place": str(place)}), place)

    def run(self, function: str, **arguments: Any) -> Ended:
        """Start a child and wait for its end."""
        return self.start(function, **arguments).end()

    def close(self) -> None:
        """End the forge."""
        with self._server:  # which closes what it talks through, and waits
            pass


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for module in ("nets", "attacks.programs"):
        importlib.import_module(module)
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            answer = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                answers.close()
                _be_a_child(**asked)
        print(json.dumps(answer), file=answers, flush=True)


def _be_a_child(function: str, arguments: dict[str, Any], place: str) -> None:
    """Ends as a script does: threads are waited for, and what is registered at exit runs."""
    os.chdir(place)
    for descriptor in (1, 2):
        os.dup2(os.open("stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.alarm(_DEADLINE_SECONDS)
    module, name = function.split(":")
    try:
        result = getattr(importlib.import_module(module), name)(**arguments)
    except Exception:  # noqa: BLE001  # whatever it is, it is this child's end
        traceback.print_exc()
        sys.exit(1)
    Path("result.json").write_text(json.dumps(result))
    sys.exit(0)


if __name__ == "__main__":
    sys.path[0] = str(TESTS)
    _serve()
