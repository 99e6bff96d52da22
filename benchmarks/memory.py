"""How much memory saving takes beyond training, in states, and whether it stays the same over many saves.

Each contestant trains and saves in a process of its own, and so does a control that saves nothing. The kernel records
the exact peak of a process's resident memory (``VmHWM``). The benchmark reads and resets it right before each save, so
each save has its own peak. A contestant's peak is the largest of all, minus the control's of the same round, divided by
the state (weights and Adam's moments). The page cache, where files lie before and after they are written, is not
resident memory of a process and does not count: the kernel takes it back when it needs to.

What training itself needs for a moment (gradients, activations) is in both. So a save that needs its memory only while
training does not need its own counts with the difference: what the machine must have beyond what training needs.

"first" and "last" are the peaks over the first and the last quarter of the saves: a growing queue shows there. One save
after every batch is more than is sensible, and shows which library limits its memory. The queue of
``AsyncCheckpointIO`` then holds as many states as there are saves, so choose ``--saves`` with ``--params`` accordingly.
"""

import argparse
import json
import os
import subprocess
import sys

import _common
import _fit
import torch
from _fit import CONTROL, OURS


def peak_bytes():
    """The largest resident memory of this process since the previous call."""
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")
    return peak


def train(name, net, interval, saves, directory):
    """In a child process: a fit with so many saves. Prints the peak of each save, and how many files were seen."""
    torch.set_num_threads(_common.cores())
    place = os.path.join(directory, "fit")
    os.makedirs(place)
    module, options = _fit.CONTESTANTS[name](net, interval, place)
    peaks, seen = [], set()

    def look(steps):
        seen.update(_fit.files(place))
        if steps % interval == 0:
            peaks.append(peak_bytes())

    module.at_step = look
    _fit.fit(module, interval * (saves + 1) - 1, place, **options)
    peaks.append(peak_bytes())
    seen.update(_fit.files(place))
    print(json.dumps({"peaks": peaks, "state": module.state_bytes(), "files": len(seen)}))


def in_child(name, params, interval, given, directory):
    with _common.workspace(directory) as own:
        command = [sys.executable, __file__, "--child", name, "--directory", own, "--params", str(params)]
        command += ["--interval", str(interval), "--saves", str(given.saves), "--batch-size", str(given.batch_size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(params, interval, given, directory):
    found = {name: [] for name in _fit.CONTESTANTS}
    for _, name in _common.turns(found, given.rounds):
        found[name].append(in_child(name, params, interval, given, directory))
    state = found[CONTROL][0]["state"]
    print(
        f"\n## {_common.size(params)} parameters and Adam: a state of {state / _common.GB:.3f} GB;"
        f" {given.saves} saves, one every {interval} batch{'es' if interval > 1 else ''}\n\n"
        f"{given.rounds} rounds. States above the control's peak: median (smallest to largest)."
    )
    above = {
        name: [states_above(run, other) for run, other in zip(runs, found[CONTROL], strict=True)]
        for name, runs in found.items()
    }
    rows = [
        [
            name,
            *(_common.spread([peaks[part] for peaks in above[name]], 2) for part in ("all", "first", "last")),
            _common.spread([max(run["peaks"]) / _common.GB for run in runs], 2),
            " ".join(sorted({str(run["files"]) for run in runs})),
        ]
        for name, runs in found.items()
    ]
    _common.table(["", "peak", "first", "last", "whole process, GB", "files"], rows)
    _common.targets([("peak above training, in states", 1.02, [peaks["all"] for peaks in above[OURS]])])


def states_above(run, control):
    """Peaks over all saves, over the first, and over the last quarter, above the control's largest."""
    training, peaks = max(control["peaks"]), run["peaks"]
    quarter = max(1, len(peaks) // 4)
    # the first entry is from before any save
    parts = {"all": peaks, "first": peaks[1 : 1 + quarter], "last": peaks[-quarter:]}
    return {part: (max(those) - training) / run["state"] for part, those in parts.items()}


def main():
    arguments = _common.parser(__doc__, params=[30_000_000], rounds=2)
    arguments.add_argument("--saves", type=int, default=16)
    arguments.add_argument("--interval", type=int, nargs="+", default=[1, 8], help="batches between two saves")
    arguments.add_argument("--batch-size", type=int, default=8, help="few rows: batches follow one another quickly")
    arguments.add_argument("--child", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child is not None:
        net = {"params": given.params[0], "batch_size": given.batch_size}
        train(given.child, net, given.interval[0], given.saves, given.directory)
        return
    if given.quick:
        given.params, given.rounds, given.saves, given.interval = [10_000_000], 1, 8, [1]
    with _common.workspace(given.directory) as directory:
        print(_common.machine(directory))
        for params in given.params:
            for interval in given.interval:
                compare(params, interval, given, directory)


if __name__ == "__main__":
    main()
