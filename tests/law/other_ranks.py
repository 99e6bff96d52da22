"""Trains on some ranks, resumes on other numbers of them, and prints what each rank did after the resume.

Arguments: an empty directory, a ``Case`` of ``many_ranks`` in JSON, the name of the file to resume from, and the
numbers of ranks. Each resume is done twice, under other ambient seeds. From the first file that it saves, it is resumed
once more on the same ranks, and printed is how that differs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from many_ranks import Case, difference, trained

from checkpointable.catalog.info import read_info


def main(where: Path, case: Case, file: str, numbers: list[int]) -> None:
    straight = trained(case, where / "straight", 1)
    print(json.dumps({"ranks": case.ranks, "outcomes": straight}), flush=True)
    for ranks in numbers:
        there, path = replace(case, ranks=ranks), str(where / "straight" / file)
        for seed in (77, 78):
            outcomes = trained(there, where / f"{ranks}_{seed}", seed, path)
            print(json.dumps({"ranks": ranks, "outcomes": outcomes}), flush=True)
        first = min((where / f"{ranks}_78").glob("epoch_*_batch_*.ckpt"), key=lambda path: read_info(path).batches)
        again = trained(there, where / f"{ranks}_again", 79, str(first))
        found = [difference(*pair) for pair in zip(again, outcomes, strict=True)]
        print(json.dumps({"ranks": ranks, "verdict": read_info(first).exactness, "differences": found}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Case(**json.loads(sys.argv[2])), sys.argv[3], [int(number) for number in sys.argv[4:]])
