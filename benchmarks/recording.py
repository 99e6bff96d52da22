"""What it costs to record a batch: the flight recorder's call for a loss on the CPU, timed by itself.

python benchmarks/recording.py
"""

import tempfile
import timeit

import torch
from _common import parser

from checkpointable.policy.lineage import Lineage
from checkpointable.resume.confirmation import Expectation
from checkpointable.resume.recorder import Recorder
from checkpointable.resume.traces import Traces
from checkpointable.storage import ring_file

CALLS = 20_000


def microseconds(call, rounds):
    """The best round: other processes only ever add time."""
    return 1e6 * min(timeit.repeat(call, number=CALLS, repeat=rounds)) / CALLS


def recorder(directory):
    made = Recorder(Traces(directories=(directory,), run_id="benchmark", rank=0, ranks=1))
    nothing = Expectation(is_same=True, strict=False, in_16_bit=False, rank="", resumed_from=None)
    made.start(Lineage.begin(), None, nothing)
    return made


def main():
    arguments = parser(__doc__, params=[], rounds=9).parse_args()
    module = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(20)))
    loss = torch.tensor(0.5)
    outputs = {"loss": loss}
    print(f"{'loss.item() alone':<44}{microseconds(loss.item, arguments.rounds):6.2f} us")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        for kinds, name in ((ring_file._KEEP_ROOM, "mapped"), (set(), "written with pwrite")):
            ring_file._KEEP_ROOM = kinds
            made = recorder(directory)
            cost = microseconds(lambda made=made: made.record(77, outputs, module), arguments.rounds)
            print(f"{f'a loss, {name}':<44}{cost:6.2f} us")
            if kinds:
                cost = microseconds(lambda made=made: made.record(77, {}, module), 1)
                print(f"{'no loss: a sample of 40 parameters, ' + name:<44}{cost:6.2f} us")
            made.finish()


if __name__ == "__main__":
    main()
