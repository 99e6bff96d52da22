"""Runs a script again and again, each time in a new process that starts with the script's imports done.

The imports take most of a short training's time. This process does them, and nothing else, and forks once for each line
of standard input: JSON with the directory to run in, the environment, and the file for what is printed. For each, it
prints the return code, negative if a signal ended the process.
"""

from __future__ import annotations

import ast
import json
import os
import runpy
import sys
from pathlib import Path


def import_all(script: str) -> None:
    """Do the imports at the top of the script."""
    tree = ast.parse(Path(script).read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, type_ignores=[]), script, "exec"), {})


def run(script: str, cwd: str, env: dict[str, str], output: str) -> None:
    """Run the script in this process."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(cwd)
    os.environ.update(env)
    runpy.run_path(script, run_name="__main__")


def main(script: str) -> None:
    import_all(script)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(script, **json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
