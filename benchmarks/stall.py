"""What saving costs a training: how long a save holds the loop, how much it slows down, and its processor time.

A real ``Trainer.fit`` saves several times. In every round each contestant runs one fit, and so does one that saves
nothing. Each batch is cut where training itself does nothing:

    training_step begins .. backward done | gap | update begins .. update done | gap | the next training_step begins

**direct**: the time in the two gaps from a save to the next one, minus the time in the gaps of quiet batches. Every
hook, copy, wait or deletion that the loop has to stand still for is in one of them: callbacks and plugins work in the
second, a wait for the snapshot before the update is in the first. Nothing that training computes is in them.
**3 batches**: the batch that the save follows and the two after it, minus three quiet ones. It includes direct, and how
much slower forward, backward and update are while a background thread takes memory bandwidth, a core, or the
interpreter.
**to the next save**: the same over all batches until the next save.
**whole fit**: from the call of ``fit`` to its return, minus the control's of the same round, divided by the saves. It
includes everything: set-up, the wait for the last background write, and what single batches don't show. It is the
difference of two long times, so it is the noisiest: the control's own line says how much its fits differ.
**CPU**: the processor time of all threads except those that train, and of those in the gaps. Noise in the training is
not in it (the control's line shows what is left of it), nor is what the kernel writes back later. From the second save
on.

A batch in the last third before a save is quiet; a save is measured against those before and after it. The first save
of a fit stands by itself because it allocates memory. The saves of a fit are the files that were seen, so that leaving
one out gains nothing. Only ours and DCP sync their files. The others' files are not on the disk yet when their fit
ends; they are synced before the next contestant's turn, and that time is not counted. All keep one file and delete the
older one. DCP's is deleted in the background, Lightning's by the loop, as Lightning does it.
"""

import itertools
import os
import statistics
import time

import _common
import _fit
import torch
from _fit import ASYNC_PEER, CONTROL, OURS, PEER

QUIET = 1 / 3  # of the batches between two saves, the last
MEASURES = {"direct": "direct", "near": "3 batches", "all": "to the next save", "whole": "whole fit"}


class Measured:
    """One fit and its times.

    Attributes:
        direct, near, all: Seconds per save without the first one: standing still; lost in three batches; lost in all.
        first: Seconds that the first save of the fit held the loop.
        seconds: Seconds of the whole fit.
        cpu: Seconds of processor time per save, the first one left out.
        saves, orders: Files seen, and saves ordered.
    """

    def __init__(self, name, net, interval, saves, directory):
        place = os.path.join(directory, "fit")
        os.makedirs(place)
        module, options = _fit.CONTESTANTS[name](net, interval, place)
        module.processor_time = training = _fit.TrainingThreads()
        seen, beside = set(), []

        def look(_):
            seen.update(_fit.files(place))
            beside.append(time.process_time() - training())

        module.at_step = look
        start = time.perf_counter()
        _fit.fit(module, interval * (saves + 1) - 1, place, **options)
        self.seconds = time.perf_counter() - start
        training.close()
        self.saves, self.orders = len(seen | _fit.files(place)), saves
        direct, near, all_, in_gaps = per_save(module.clock, interval, saves)
        self.first, self.direct, self.near, self.all = direct[0], direct[1:], near[1:], all_[1:]
        self.cpu = (beside[-1] - beside[2 * interval - 1] + sum(in_gaps[1:])) / (saves - 1)
        del module, options
        _fit.clear_up(place)


def per_save(clock, interval, saves):
    """For each save: seconds in the gaps, lost in three batches, lost until the next; processor time in the gaps."""
    count = len(clock["begin"]) - 1  # the last batch is not followed by one
    periods, gaps, busy = [], [], []
    for i in range(count):
        (begin, _), (backward, backward_cpu) = clock["begin"][i], clock["backward"][i]
        (update, update_cpu), (step, step_cpu) = clock["update"][i], clock["step"][i]
        following, following_cpu = clock["begin"][i + 1]
        periods.append(following - begin)
        gaps.append(update - backward + following - step)
        busy.append(update_cpu - backward_cpu + following_cpu - step_cpu)
    results = []
    for save in range(1, saves + 1):
        at = save * interval - 1
        window = range(at, min(at + interval, count))
        tail = round(interval * QUIET)
        quiet = [*range(at - tail, at), *range(at + interval - tail, min(at + interval, count))]
        gap, period, work = (statistics.median(of[i] for i in quiet) for of in (gaps, periods, busy))
        results.append(
            (
                sum(gaps[i] - gap for i in window),
                sum(periods[i] - period for i in window[:3]),
                sum(periods[i] - period for i in window),
                sum(busy[i] - work for i in window),
            )
        )
    return tuple(zip(*results, strict=True))


def seconds_of_copy(params):
    """One thread copies a state of that size into an allocated buffer: the least that a snapshot can take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    state, buffer = torch.ones(3 * params), torch.ones(3 * params)
    marks = [time.perf_counter()]
    for _ in range(3):
        buffer.copy_(state)
        marks.append(time.perf_counter())
    torch.set_num_threads(threads)
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(marks))


def main():
    arguments = _common.parser(__doc__, params=[10_000_000, 100_000_000], rounds=5)
    arguments.add_argument("--threads", type=_common.threads, nargs="+", default=[1, _common.cores()])
    arguments.add_argument("--saves", type=int, default=4, help="in each fit")
    arguments.add_argument("--interval", type=int, default=12, help="batches between two saves")
    arguments.add_argument("--layers", type=int, help="spread the parameters over so many layers: many small tensors")
    arguments.add_argument("--batch-size", type=int, default=64, help="sets what a batch computes")
    given = arguments.parse_args()
    if given.saves < 2 or given.interval < 6:
        arguments.error(
            "at least 2 saves (the first is set apart), at least 6 batches apart (the quiet ones are among them)"
        )
    if given.quick:
        given.params, given.threads, given.rounds, given.saves, given.interval = [10_000_000], [1], 2, 2, 8
    with _common.workspace(given.directory) as directory:
        print(_common.machine(directory))
        for name in _fit.CONTESTANTS:  # imports, and everything else that is done once in a process
            Measured(name, {"params": 1000}, 6, 2, directory)
        for params in given.params:
            for threads in given.threads:
                torch.set_num_threads(threads)
                compare(params, threads, given, directory)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def compare(params, threads, given, directory):
    net = {"params": params, "layers": given.layers, "batch_size": given.batch_size}
    module = _fit.Net(**net)
    state, tensors = module.state_bytes(), module.state_tensors()
    del module
    found = {name: [] for name in _fit.CONTESTANTS}
    copies = []
    for round_number, name in _common.turns(found, given.rounds):
        if len(copies) == round_number:
            copies.append(seconds_of_copy(params))
        found[name].append(Measured(name, net, given.interval, given.saves, directory))
    control = found[CONTROL]
    batch = statistics.median(fit.seconds for fit in control) / (given.interval * (given.saves + 1))
    print(
        f"\n## {_common.size(params)} parameters and Adam: {state / _common.GB:.3f} GB in {tensors} tensors;"
        f" torch threads: {threads}\n\n"
        f"{given.rounds} rounds, {given.saves} saves in each fit, one every {given.interval} batches of about"
        f" {batch * 1e3:.0f} ms. Milliseconds per save: median (smallest to largest)."
    )
    report(found, state)
    compare_with_peers(found)
    against_targets(found, copies, state, tensors, threads)


def report(found, state):
    rows = []
    for name, fits in found.items():
        row = [name]
        row += [_common.spread([value * 1e3 for fit in fits for value in fit.direct], 1)]
        row += [_common.spread([value * 1e3 for fit in fits for value in fit.near])]
        row += [_common.spread([value * 1e3 for fit in fits for value in fit.all])]
        row += [_common.spread([value * 1e3 for value in whole(fits, found[CONTROL])])]
        row += [_common.spread([fit.first * 1e3 for fit in fits], 1)]
        row += [_common.spread([fit.cpu / state * _common.GB for fit in fits], 2)]
        row += [" ".join(sorted({str(fit.saves) for fit in fits}))]
        rows.append(row)
    head = ("", *MEASURES.values(), "first save, direct", "CPU s/GB", "files")
    _common.table(head, rows)


def whole(fits, control):
    """Seconds per save that each fit took longer than its round's control. For the control: than its median fit."""
    if fits is control:
        usual = statistics.median(fit.seconds for fit in control)
        return [(fit.seconds - usual) / fit.orders for fit in control]
    pairs = zip(fits, control, strict=True)
    return [(fit.seconds - other.seconds) / fit.saves for fit, other in pairs if fit.saves]


def rounds(found, name, what):
    """For each round, the seconds of one measure."""
    if what == "whole":
        return [[value] for value in whole(found[name], found[CONTROL])]
    return [getattr(fit, what) for fit in found[name]]


def ratios(found, name, peer, what):
    return _common.ratios(rounds(found, name, what), rounds(found, peer, what))


def compare_with_peers(found):
    for peer in (PEER, ASYNC_PEER):
        print(f"\nDivided by what {peer} took in the same round:")
        rows = [
            [name, *(_common.spread(ratios(found, name, peer, what), 3) for what in MEASURES)]
            for name in found
            if name not in (CONTROL, peer)
        ]
        _common.table(["", *MEASURES.values()], rows)


def against_targets(found, copies, state, tensors, threads):
    large = state > 0.6 * _common.GB
    targets = [
        (f"direct / {PEER}", 0.01 if large else 0.05, ratios(found, OURS, PEER, "direct")),
        (f"direct / {ASYNC_PEER}", 0.02 if large else 0.1, ratios(found, OURS, ASYNC_PEER, "direct")),
        (f"whole fit / {PEER}", 0.1, ratios(found, OURS, PEER, "whole")),
    ]
    if state < 0.02 * _common.GB:
        allowed = [[0.002 + 10e-6 * tensors]] * len(copies)
        shares = _common.ratios(rounds(found, OURS, "direct"), allowed)
        targets = [(f"direct / (2 ms + 10 us for each of {tensors} tensors)", 1, shares)]
    if threads == _common.cores():
        copied = [[copy] for copy in copies]
        for what in ("whole", "all"):
            slowed = _common.ratios(rounds(found, OURS, what), copied)
            targets.append((f"{MEASURES[what]}, all cores busy / a one-thread copy of the state", 1.25, slowed))
    _common.targets(targets)


if __name__ == "__main__":
    main()
