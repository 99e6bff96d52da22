"""How long it takes until a killed run trains again: from the start of the process to the end of the first step.

A training is saved in the middle of an epoch and stopped. A new process imports, builds the module, calls ``fit`` with
``ckpt_path``, and ends as soon as the optimizer step of the first batch is done. An earlier end would leave out what
lazy loading postpones. Ours resumes our file, Lightning's ``ModelCheckpoint`` its own. A third process starts anew,
which is the least that a resume can take. Each has its turn in every round: once with the file dropped from the page
cache (synced, then ``posix_fadvise``; caches below this machine's own are out of reach), and once with it in there.

"from `fit`" begins at the call of ``fit``. It leaves out the imports and building the module, which are the same for
all (our own import is part of "process"). Ours compares every checksum before it restores anything, and returns to the
same sample with the same random states. Lightning's does neither.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import _common
import torch

NOTHING, LIGHTNING, OURS = "a new start", "Lightning", "**ours**"
BATCHES, SAVED = 8, 4
TARGETS = {"warm": 0.8, "cold": 0.95}  # of Lightning's time


def child(given):
    """One process: train and save, or resume. Prints the seconds it took."""
    import _fit  # here, because the import is part of what is measured

    torch.set_num_threads(given.threads)
    build = _fit.ours_async if given.child == OURS else _fit.model_checkpoint
    place = os.path.join(given.directory, "runs" if given.checkpoint is None else "resumed")
    module, options = build({"params": given.params[0]}, SAVED, place)
    called = time.perf_counter()

    def end(_):
        now = time.perf_counter()
        print(json.dumps({"process": now - given.started, "fit": now - called}), flush=True)
        os._exit(0)  # the rest is not measured

    if given.checkpoint is not None:
        module.at_step = end
    _fit.fit(module, BATCHES - 1, place, ckpt_path=given.checkpoint or None, **options)
    print(json.dumps(next(entry.path for entry in os.scandir(place) if entry.name.startswith("step"))))


def in_child(name, params, threads, directory, *arguments):
    command = [sys.executable, __file__, "--child", name, "--params", str(params), "--threads", str(threads)]
    command += ["--directory", directory, "--started", repr(time.perf_counter()), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def drop_from_cache(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def bring_into_cache(path):
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass


def compare(params, given, directory):
    files = {}
    for name in (LIGHTNING, OURS):
        with _common.workspace(directory) as place:
            path = in_child(name, params, given.threads, place)
            files[name] = os.path.join(directory, f"{len(files)}.ckpt")
            os.rename(path, files[name])
    found = {(name, cache): [] for cache in ("cold", "warm") for name in (LIGHTNING, OURS)}
    found[NOTHING, ""] = []
    for _, (name, cache) in _common.turns(found, given.rounds):
        path = files.get(name, "")
        if path:
            (drop_from_cache if cache == "cold" else bring_into_cache)(path)
        with _common.workspace(directory) as place:
            taken = in_child(name, params, given.threads, place, "--checkpoint", path)
        found[name, cache].append(taken)
    print(
        f"\n## {_common.size(params)} parameters and Adam: {os.path.getsize(files[OURS]) / _common.GB:.3f} GB;"
        f" torch threads: {given.threads}\n\n{given.rounds} rounds. Milliseconds to the end of the first step,"
        " and their ratio to Lightning's: median (smallest to largest)."
    )
    rows, targets = [], []
    for (name, cache), results in found.items():
        row = [f"{name}, {cache}" if cache else name]
        for since in ("process", "fit"):
            row.append(_common.spread([result[since] * 1e3 for result in results]))
            theirs = [[result[since]] for result in found.get((LIGHTNING, cache), [])]
            shares = _common.ratios([[result[since]] for result in results], theirs) if theirs else []
            row.append(_common.spread(shares, 2))
            if name == OURS and since == "fit":
                targets.append((f"from `fit`, {cache}: ours / Lightning", TARGETS[cache], shares))
        rows.append(row)
    warm, anew = ([[result["fit"]] for result in found[of]] for of in ((OURS, "warm"), (NOTHING, "")))
    targets.append(("from `fit`, warm: ours / a new start", 1.1, _common.ratios(warm, anew)))
    _common.table(["", "from the process", "ratio", "from `fit`", "ratio"], rows)
    _common.targets(targets)
    for path in files.values():
        os.unlink(path)


def main():
    arguments = _common.parser(__doc__, params=[10_000_000, 100_000_000], rounds=7)
    arguments.add_argument("--threads", type=_common.threads, default=_common.cores())
    for name in ("--child", "--checkpoint"):
        arguments.add_argument(name, help=argparse.SUPPRESS)
    arguments.add_argument("--started", type=float, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child is not None:
        child(given)
        return
    if given.quick:
        given.params, given.rounds = [10_000_000], 1
    with _common.workspace(given.directory) as directory:
        print(_common.machine(directory))
        for params in given.params:
            compare(params, given, directory)


if __name__ == "__main__":
    main()
