"""The ratios that matter, in under two minutes, beside those of the last release: what became slower since?

Run it by hand before a release, with other programs closed. Each row is measured by the script named beside it, with
fewer rounds. A ratio is taken within one round, so it can be compared with another day's; where the spread of a row is
as large as its change, run that script by itself. ``--record`` writes ``record.json``, which holds the last release's.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import _common
import memory
import overhead
import resume
import stall
import throughput
import torch
from _fit import CONTROL, OURS, PEER

from checkpointable import __version__

RECORD = Path(__file__).with_name("record.json")
PARAMS = 10_000_000
SMALL = {"params": 1_000_000, "layers": 147, "batch_size": 8}  # with Adam 1,176 tensors of many values
ROUNDS = 3


def of_saves(directory):
    """What a save costs a training: ``stall.py``."""
    for what, net, interval in (("10 M", {"params": PARAMS}, 8), ("1,176 small tensors", SMALL, 10)):
        found = {name: [] for name in (PEER, OURS)}
        for _, name in _common.turns(found, ROUNDS):
            found[name].append(stall.Measured(name, net, interval, 2, directory))
        for measure, words in (("direct", "a save holds the loop"), ("first", "the first save holds the loop")):
            seconds = ([_as_list(getattr(fit, measure)) for fit in found[name]] for name in (OURS, PEER))
            yield f"{words}, {what} / `ModelCheckpoint`", _common.ratios(*seconds)
        cpu = _common.ratios(*([[fit.cpu] for fit in found[name]] for name in (OURS, PEER)))
        yield f"processor time of a save, {what} / `ModelCheckpoint`", cpu


def _as_list(value):
    return value if isinstance(value, list | tuple) else [value]


def of_batches(_):
    """What a batch costs on which nothing is due: ``overhead.py``."""
    bare, mixed = overhead.PEER, overhead.OURS
    taken = {name: [] for name in (bare, mixed)}
    for round_number, name in _common.turns(taken, 10 * ROUNDS + 1):
        microseconds = overhead.microseconds_per_batch(*overhead.CONTENDERS[name])
        if round_number > 0:  # the first warms up
            taken[name].append(microseconds)
    tenths = ([values[at::ROUNDS] for at in range(ROUNDS)] for values in (taken[mixed], taken[bare]))
    yield "an empty batch / Lightning's with its default callback", _common.ratios(*tenths)


def of_files(directory):
    """How long a state takes to the disk: ``throughput.py``."""
    checkpoint = throughput.state_of(PARAMS, os.path.join(directory, "fit"))
    savers = throughput.contestants(checkpoint, throughput.Bytes(checkpoint, directory))
    found = {name: [] for name in (throughput.DIRECT_BACK, throughput.OURS) if name in savers}
    for round_number, name in _common.turns(found, ROUNDS + 1):
        result = throughput.measure(*savers[name], directory)
        if round_number > 0:  # the first allocates
            found[name].append(result)
    if len(found) == 2:  # else there is no O_DIRECT here
        ratios = throughput.ratios(found, throughput.OURS, throughput.DIRECT_BACK)
        yield "durable / a bare write that is read back", ratios


def of_memory(directory):
    """How much memory saving takes: ``memory.py``."""
    given = Namespace(saves=8, batch_size=8)
    peaks = {name: memory.in_child(name, PARAMS, 1, given, directory) for name in (CONTROL, OURS)}
    yield "memory above training, in states", [memory.states_above(peaks[OURS], peaks[CONTROL])["all"]]


def of_resumes(directory):
    """How soon a killed run trains again, its file in the page cache: ``resume.py``."""
    files = {}
    for name in (resume.LIGHTNING, resume.OURS):
        with _common.workspace(directory) as place:
            files[name] = os.path.join(directory, f"{len(files)}.ckpt")
            os.rename(resume.in_child(name, PARAMS, 1, place), files[name])
    found = {name: [] for name in files}
    for _, name in _common.turns(files, ROUNDS):
        resume.bring_into_cache(files[name])
        with _common.workspace(directory) as place:
            found[name].append([resume.in_child(name, PARAMS, 1, place, "--checkpoint", files[name])["process"]])
    ratios = _common.ratios(found[resume.OURS], found[resume.LIGHTNING])
    yield "from a process's start to its first step / Lightning's", ratios


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--directory", help="where files are written; its file system is what is measured")
    arguments.add_argument("--record", action="store_true", help=f"write {RECORD.name}, for a release")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"rows": {}}
    with _common.workspace(given.directory) as directory:
        machine = _common.machine(directory)
        print(machine)
        for name in (PEER, OURS):  # imports, and everything else that is done once in a process
            stall.Measured(name, {"params": 1000}, 6, 2, directory)
        rows = {}
        for measured in (of_saves, of_batches, of_files, of_memory, of_resumes):
            with tempfile.TemporaryDirectory(dir=directory) as place:
                rows |= dict(measured(place))
    last = record["rows"]
    _common.table(
        ("", "now", f"in {record.get('version', 'no release yet')}"),
        [[what, _common.spread(found, 3), f"{last[what]:.3f}" if what in last else ""] for what, found in rows.items()],
    )
    if last:
        print(f"\nThat was on {record['machine']}.")
    print(f"\n{time.monotonic() - began:.0f} s; load {os.getloadavg()[0]:.1f} at the end")
    if given.record:
        medians = {what: round(statistics.median(found), 4) for what, found in rows.items() if found}
        RECORD.write_text(json.dumps({"version": __version__, "machine": machine, "rows": medians}, indent=2) + "\n")


if __name__ == "__main__":
    main()
