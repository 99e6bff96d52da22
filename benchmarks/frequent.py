"""How much longer a training takes that saves very often, while it fills all cores.

PCcheck (ASPLOS'25) reports 3 % for a save every 10 iterations, on its own hardware. Here each contestant trains the
same number of batches in its turn: without saving, with ``ModelCheckpoint``, and with ours, one save every 10 batches
and one after every batch. Counted is the wall time from the first batch that is not the first of the process to the
last one, so the set-up of a fit, its first save's memory and the wait for its last file are left out. A save by
interval that finds an earlier one in progress is made later, so "files" says how many there were.
"""

import os
import statistics

import _common
import _fit
import torch
from _fit import CONTROL, OURS, PEER


def seconds_of(name, net, interval, batches, directory):
    """Wall time from batch to batch, and how many files were seen."""
    place = os.path.join(directory, "fit")
    os.makedirs(place)
    module, options = _fit.CONTESTANTS[name](net, interval, place)
    seen = set()
    module.at_step = lambda _: seen.update(_fit.files(place))
    _fit.fit(module, batches, place, **options)
    begins = [at for at, _ in module.clock["begin"]]
    seconds, files = begins[-1] - begins[interval + 1], len(seen | _fit.files(place))
    del module, options
    _fit.clear_up(place)
    return seconds, files


def compare(params, interval, given, directory):
    net = {"params": params, "batch_size": given.batch_size}
    found = {name: [] for name in (CONTROL, PEER, OURS)}
    for _, name in _common.turns(found, given.rounds):
        found[name].append(seconds_of(name, net, interval, given.batches, directory))
    batch = statistics.median(seconds for seconds, _ in found[CONTROL]) / (given.batches - interval - 2)
    print(
        f"\n## {_common.size(params)} parameters, a save every {interval} batch{'es' if interval > 1 else ''} of about"
        f" {batch * 1e3:.0f} ms\n\n{given.rounds} rounds of {given.batches} batches; torch threads:"
        f" {torch.get_num_threads()}. Per cent longer than without saving: median (smallest to largest)."
    )
    longer = {name: _longer(found, name) for name in (PEER, OURS)}
    rows = [
        [name, _common.spread(longer[name], 1), " ".join(sorted({str(files) for _, files in found[name]}))]
        for name in longer
    ]
    _common.table(["", "% longer", "files"], rows)
    _common.targets([("% longer, ours", 3 if interval > 1 else 10, longer[OURS])])


def _longer(found, name):
    pairs = _common.ratios(*([[seconds] for seconds, _ in found[of]] for of in (name, CONTROL)))
    return [100 * (ratio - 1) for ratio in pairs]


def main():
    arguments = _common.parser(__doc__, params=[10_000_000], rounds=5)
    arguments.add_argument("--interval", type=int, nargs="+", default=[10, 1], help="batches between two saves")
    arguments.add_argument("--batches", type=int, default=82)
    arguments.add_argument("--batch-size", type=int, default=256, help="sets what a batch computes")
    given = arguments.parse_args()
    if given.quick:
        given.rounds, given.batches = 1, 42
    torch.set_num_threads(_common.cores())
    with _common.workspace(given.directory) as directory:
        print(_common.machine(directory))
        for name in (CONTROL, PEER, OURS):  # imports, and everything else that is done once in a process
            seconds_of(name, {"params": 1000}, 6, 20, directory)
        for params in given.params:
            for interval in given.interval:
                compare(params, interval, given, directory)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
