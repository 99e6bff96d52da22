"""How much longer a training takes that saves very often, and what each save adds to it.

PCcheck (ASPLOS'25) reports 3 % for a save every 10 iterations, on its own hardware. Here each contestant trains the
same number of batches in its turn: without saving, with ``ModelCheckpoint``, and with ours, one save every 10 batches
and one after every batch. Counted is the wall time from the batch after the first save to the last one, so the set-up
of a fit, its first save's memory and the wait for its last file are left out: they belong to a fit, and not to a save.
A save by interval that finds an earlier one in progress is made later, so "files" says how many there were. With
``--threads all``, training fills all cores, and what runs in the background takes them from it.
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


def compare(params, interval, threads, given, directory):
    net = {"params": params, "batch_size": given.batch_size}
    found = {name: [] for name in (CONTROL, PEER, OURS)}
    for _, name in _common.turns(found, given.rounds):
        found[name].append(seconds_of(name, net, interval, given.batches, directory))
    counted = given.batches - interval - 2
    batch = statistics.median(seconds for seconds, _ in found[CONTROL]) / counted
    print(
        f"\n## {_common.size(params)} parameters, a save every {interval} batch{'es' if interval > 1 else ''} of about"
        f" {batch * 1e3:.0f} ms; torch threads: {threads}\n\n{given.rounds} rounds of {given.batches} batches. Beside"
        f" the training of the same round that does not save: median (smallest to largest)."
    )
    longer, added = {}, {}
    for name in (PEER, OURS):
        pairs = [(mine, without) for (mine, _), (without, _) in zip(found[name], found[CONTROL], strict=True)]
        longer[name] = [100 * (mine / without - 1) for mine, without in pairs]
        added[name] = [(mine - without) / counted * interval for mine, without in pairs]
    rows = [
        [
            name,
            _common.spread(longer[name], 1),
            _common.spread([seconds * 1e3 for seconds in added[name]]),
            " ".join(sorted({str(files) for _, files in found[name]})),
        ]
        for name in longer
    ]
    _common.table(["", "% longer", "ms for each save that was due", "files"], rows)
    shares = [mine / other for mine, other in zip(added[OURS], added[PEER], strict=True) if other > 0]
    most = 0.05 if params >= 100_000_000 else 0.1
    _common.targets(
        [("% longer, ours", 3 if interval > 1 else 10, longer[OURS]), (f"added, ours / {PEER}", most, shares)]
    )


def main():
    arguments = _common.parser(__doc__, params=[10_000_000], rounds=5)
    arguments.add_argument("--interval", type=int, nargs="+", default=[10, 1], help="batches between two saves")
    arguments.add_argument("--threads", type=_common.threads, nargs="+", default=[_common.cores()])
    arguments.add_argument("--batches", type=int, default=82)
    arguments.add_argument("--batch-size", type=int, default=256, help="sets what a batch computes")
    given = arguments.parse_args()
    if given.quick:
        given.rounds, given.batches = 1, 42
    with _common.workspace(given.directory) as directory:
        print(_common.machine(directory))
        for name in (CONTROL, PEER, OURS):  # imports, and everything else that is done once in a process
            seconds_of(name, {"params": 1000}, 6, 20, directory)
        for params in given.params:
            for interval in given.interval:
                for threads in given.threads:
                    torch.set_num_threads(threads)
                    compare(params, interval, threads, given, directory)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
