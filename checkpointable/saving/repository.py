"""The git repository of the script that trains: its commit, and whether it has changes that were not committed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from dataclasses import dataclass

_SECONDS = 30.0  # after which git is given up, as on a file system that hangs
_COMMAND = ("-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--untracked-files=no")
_OF_ANOTHER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")  # set where a hook of git runs us
_COMMIT = "# branch.oid "


@dataclass(eq=False)
class Repository:
    """What git says of one directory. Until that is known, and where there is none, both are ``None``."""

    commit: str | None = None
    is_dirty: bool | None = None

    def read(self, directory: str) -> None:
        """Ask git, and give up after half a minute. Nothing is written, also no lock of the repository."""
        environment = {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER}
        environment["GIT_OPTIONAL_LOCKS"] = "0"
        try:
            answer = subprocess.run(
                ["git", "-C", directory, *_COMMAND],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_SECONDS,
                env=environment,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):  # there is no git, no repository, or no answer
            return
        lines = answer.stdout.decode(errors="replace").splitlines()
        commit = next((line.removeprefix(_COMMIT) for line in lines if line.startswith(_COMMIT)), None)
        if commit is not None and not commit.startswith("("):  # "(initial)": nothing is committed yet
            self.commit, self.is_dirty = commit, any(not line.startswith("#") for line in lines)


_KNOWN: dict[str, Repository] = {}  # by directory: the code that runs is that of the start of the process
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_KNOWN.clear)  # the thread that reads is in the parent alone


def of_script() -> Repository:
    """The repository of the directory of the script, read in the background, once in a process.

    Nothing is read in a notebook, which has no script.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is None:
        return Repository()
    directory = os.path.dirname(os.path.abspath(script))
    if directory not in _KNOWN:
        found = _KNOWN[directory] = Repository()
        thread = threading.Thread(target=found.read, args=(directory,), name="checkpointable-git", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread can be started any more, and nothing is known
            thread.start()
    return _KNOWN[directory]
