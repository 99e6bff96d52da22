"""Trains on some ranks, resumes on other numbers of them, and prints what each rank did after the resume.

Arguments: an empty directory, a ``Case`` of ``many_ranks`` in JSON, the name of the file to resume from, and the
numbers of ranks. Each resume is done twice, under other ambient seeds.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from many_ranks import Case, trained


def main(where: Path, case: Case, file: str, numbers: list[int]) -> None:
    straight = trained(case, where / "straight", 1)
    print(json.dumps({"ranks": case.ranks, "outcomes": straight}), flush=True)
    for ranks in numbers:
        for seed in (77, 78):
            path = where / "straight" / file
            outcomes = trained(replace(case, ranks=ranks), where / f"{ranks}_{seed}", seed, str(path))
            print(json.dumps({"ranks": ranks, "outcomes": outcomes}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Case(**json.loads(sys.argv[2])), sys.argv[3], [int(number) for number in sys.argv[4:]])
