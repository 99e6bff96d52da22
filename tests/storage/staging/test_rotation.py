"""Which part of the late copies is compared: each byte has its turn."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from checkpointable.storage.staging import rotation
from checkpointable.storage.staging.rotation import Rotation


@pytest.mark.parametrize("seed", range(20))
def test_every_byte_is_compared_once_before_one_is_compared_again(seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.choice([rotation._LEAST, 100_000, 1 << 22, 30_000_000]) for _ in range(draw.randrange(1, 9))]
    taken, saves, compared = Rotation(), 0, 0
    covered: list[list[tuple[int, int]]] = [[] for _ in sizes]
    while compared < sum(sizes):
        for number, (begin, end) in enumerate(taken.next_part(sizes)):
            assert 0 <= begin <= end <= sizes[number]
            covered[number] += [(begin, end)] if begin < end else []
            compared += end - begin
        saves += 1
    for size, parts in zip(sizes, covered, strict=True):
        assert parts[0][0] == 0
        assert parts[-1][1] == size
        assert all(one[1] == other[0] for one, other in pairwise(parts))
    assert saves <= max(rotation._SAVES, -(-sum(sizes) // rotation.MOST))


def test_part_is_small_and_begins_anew_where_the_state_has_shrunk() -> None:
    taken = Rotation()
    assert list(taken.next_part([1 << 30, 1 << 20])) == [(0, rotation.MOST), (0, 0)]
    assert list(taken.next_part([100_000])) == [(0, rotation._LEAST)]
    assert list(taken.next_part([10, 20])) == [(0, 10), (0, 20)]


def test_save_without_late_copies_does_not_begin_anew() -> None:
    taken, sizes = Rotation(), [1 << 20]
    assert list(taken.next_part(sizes)) == [(0, rotation._LEAST)]
    assert list(taken.next_part([])) == []
    assert list(taken.next_part(sizes)) == [(rotation._LEAST, 2 * rotation._LEAST)]
