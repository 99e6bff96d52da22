"""Runs every notebook of this folder, and fails with the traceback of the cell that failed.

Nothing is stored: the notebooks stay unchanged, and their output goes into a temporary directory.
"""

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError


def run(path):
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as directory:
        client = NotebookClient(notebook, timeout=120, extra_arguments=["--IPKernelApp.log_level=ERROR"])
        client.execute(cwd=directory)


def main():
    failed = False
    for path in sorted(Path(__file__).parent.glob("*.ipynb")):
        began = time.perf_counter()
        try:
            run(path)
        except CellExecutionError as error:
            failed = True
            print(error, file=sys.stderr)
        print(f"{path.name}: {time.perf_counter() - began:.1f} s")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
