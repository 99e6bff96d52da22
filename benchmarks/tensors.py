"""What a save costs the training with more and more tensors of the same bytes in all.

One million parameters are spread over more and more layers. With Adam, a layer has eight tensors: its weight and its
bias, and of each the two moments and a count of steps. Each contestant trains in its turn, as in ``stall.py``, and of
each save counted is what it holds the training thread, and the processor time of all threads beside training. The first
save of a fit is left out, and the median of the four others is taken, as Python's garbage collector walks all objects
in some saves of many tensors. What grows from one row to the next is the cost of a tensor.
"""

import statistics

import _common
import stall
import torch
from _fit import OURS, PEER, Net

LAYERS = (15, 150, 600, 1250)
SAVES, INTERVAL = 5, 6


def main():
    arguments = _common.parser(__doc__, params=[1_000_000], rounds=5)
    arguments.add_argument("--layers", type=int, nargs="+", default=LAYERS)
    given = arguments.parse_args()
    if given.quick:
        given.layers, given.rounds = LAYERS[:2], 2
    torch.set_num_threads(1)
    with _common.workspace(given.directory) as directory:
        print(_common.machine(directory))
        for params in given.params:
            compare(params, given, directory)


def compare(params, given, directory):
    nets = {layers: {"params": params, "layers": layers, "batch_size": 1} for layers in given.layers}
    found = {(layers, name): [] for layers in nets for name in (PEER, OURS)}
    for _, (layers, name) in _common.turns(found, given.rounds):
        found[layers, name].append(stall.Measured(name, nets[layers], INTERVAL, SAVES, directory))
    rows = []
    for layers, net in nets.items():
        module = Net(**net)
        state, tensors = module.state_bytes(), module.state_tensors()
        held = {name: [statistics.median(fit.direct) for fit in found[layers, name]] for name in (PEER, OURS)}
        beside = {name: [fit.cpu * 1e3 for fit in found[layers, name]] for name in (PEER, OURS)}
        allowed = 0.002 + 10e-6 * tensors
        rows.append(
            [
                f"{tensors:,}",
                f"{state / 1e6:.0f}",
                *(_common.spread([seconds * 1e3 for seconds in held[name]], 1) for name in (PEER, OURS)),
                _common.spread([seconds / allowed for seconds in held[OURS]], 2),
                *(_common.spread(beside[name]) for name in (PEER, OURS)),
            ]
        )
    print(f"\n{_common.size(params)} parameters; milliseconds per save: median (smallest to largest)")
    head = ["tensors", "MB", f"{PEER} holds the loop", f"{OURS} hold it", f"{OURS} / (2 ms and 10 us a tensor)"]
    _common.table([*head, f"processor time, {PEER}", f"processor time, {OURS}"], rows)


if __name__ == "__main__":
    main()
