"""Whether a save takes longer the more files a run keeps.

One training saves after every batch, and keeps every file (``save_last_k=-1``). Printed is the processor time of a save
once so many files are kept: of the training thread, which waits, and of the thread that makes the file. A file has a
few kB, so what grows is the book-keeping alone.
"""

import argparse
import statistics
import time

import _common
import _fit
import torch

from checkpointable.saving import save_task, session

STEPS = (100, 1_000, 10_000)
NEAR = 40  # saves that a figure is the median of


def timed(owner, name, taken):
    """Let a method note the processor time that each of its calls takes."""
    whole = getattr(owner, name)

    def noting(*arguments, **named):
        began = time.thread_time()
        try:
            return whole(*arguments, **named)
        finally:
            taken.append(time.thread_time() - began)

    setattr(owner, name, noting)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=STEPS[-1], help="how many are kept in the end")
    arguments.add_argument("--directory", help="where files are written; its file system is what is measured")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    waited, worked = [], []
    timed(session.Session, "_save_file", waited)
    timed(save_task.SaveTask, "run", worked)
    with _common.workspace(given.directory) as directory:
        print(_common.machine(directory))
        options = {"save_interval": 1, "save_last_k": -1, "monitor": None, "save_last": False, "dirpath": directory}
        _fit.fit(_fit.Ours(params=100, **options), given.files, directory, enable_checkpointing=True)
    rows = []
    for files in (step for step in STEPS if step <= given.files):
        figures = [[seconds * 1e3 for seconds in taken[files - NEAR : files]] for taken in (waited, worked)]
        rows.append([f"{files:,}", *(f"{statistics.median(figure):.2f}" for figure in figures)])
    _common.table(("files kept", "training thread, ms", "background thread, ms"), rows)


if __name__ == "__main__":
    main()
