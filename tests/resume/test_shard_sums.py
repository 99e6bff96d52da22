"""The sums over tensors add up to the same, however the tensors are cut into parts."""

from __future__ import annotations

import itertools

import pytest
import torch

from checkpointable.resume import shard_sums

KINDS = [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8, torch.complex64]


def tensor(shape, kind) -> torch.Tensor:
    bits = torch.randint(0, 256, (*shape, kind.itemsize), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return (bits % 2 if kind is torch.bool else bits).view(kind).squeeze(-1)


def of(part: torch.Tensor, offsets=None, shape=None) -> int:
    return shard_sums._sum(part, offsets or [0] * part.dim(), shape or part.shape)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("parts", [(1, 1, 1), (2, 1, 1), (4, 1, 1), (1, 3, 1), (2, 2, 2), (9, 1, 5)], ids=str)
def test_parts_add_up_to_the_whole(kind, parts):
    whole = tensor((7, 6, 5), kind)
    cuts = [
        [len(range(size)[: at * -(-size // count)]) for at in range(count + 1)]
        for size, count in zip(whole.shape, parts, strict=True)
    ]
    total = 0
    for blocks in itertools.product(*(list(itertools.pairwise(places)) for places in cuts)):
        part = whole[tuple(slice(*block) for block in blocks)]
        total += of(part, [begin for begin, _ in blocks], whole.shape)
    assert total % (1 << 64) == of(whole)


def test_many_rows_count_as_few(monkeypatch):
    whole = tensor((40, 3), torch.float32)
    expected = of(whole)
    monkeypatch.setattr(shard_sums, "_ELEMENTS", 7)
    assert of(whole) == expected


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_bit_and_every_place_counts(kind):
    whole = tensor((3, 4), kind)
    expected = of(whole)
    bits = whole.view(torch.uint8) if kind is not torch.bool else whole
    for place in range(bits.numel()):
        changed = whole.clone()
        flat = changed.view(torch.uint8).reshape(-1) if kind is not torch.bool else changed.reshape(-1)
        flat[place] = ~flat[place] if kind is torch.bool else flat[place] ^ 1
        assert of(changed) != expected
    assert of(torch.tensor([1.0, 2.0])) != of(torch.tensor([2.0, 1.0]))


def test_number_and_nothing_have_a_sum():
    assert of(torch.tensor(3.0)) == of(torch.tensor([3.0]))
    assert of(torch.zeros(0, 4)) == 0
