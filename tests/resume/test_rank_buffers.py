"""The buffers of a rank, where DDP lets them differ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from checkpointable.resume import rank_buffers

pytestmark = [
    pytest.mark.usefixtures("process_group"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # torch's, of the name broadcast_buffers
]


def trainer(**options: Any) -> Any:
    """As much of a trainer as is asked, with a module that has seen a batch."""
    model = DistributedDataParallel(torch.nn.BatchNorm1d(2), **options)
    model(torch.randn(4, 2))
    return SimpleNamespace(world_size=2, strategy=SimpleNamespace(model=model), lightning_module=model.module)


def test_buffers_that_the_next_batch_shares_are_not_saved():
    assert rank_buffers.capture(trainer()) == {}


@pytest.mark.parametrize("in_window", [True, False])
def test_buffers_that_each_rank_keeps_are_restored_and_not_shared_in_the_next_batch(in_window):
    options = {} if in_window else {"broadcast_buffers": False}
    one, other = trainer(**options), trainer(**options)
    if in_window:
        with one.strategy.model.no_sync():
            one.strategy.model(torch.randn(4, 2))
    saved = rank_buffers.capture(one)
    assert saved.keys() == {"running_mean", "running_var", "num_batches_tracked"}
    rank_buffers.restore(other, saved)
    assert all(torch.equal(buffer, saved[name]) for name, buffer in other.lightning_module.named_buffers())
    assert not other.strategy.model.will_sync_module_buffers()


def test_buffers_of_a_single_process_are_not_saved():
    alone = trainer(broadcast_buffers=False)
    alone.world_size = 1
    assert rank_buffers.capture(alone) == {}
