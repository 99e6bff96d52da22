"""The buckets of DDP, in one process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from checkpointable.lightning_internals import ddp
from checkpointable.policy.verdict import Level
from checkpointable.resume import gradient_sums
from checkpointable.resume.state import GradientSums

pytestmark = pytest.mark.usefixtures("process_group")


def wrapped(**options: Any) -> DistributedDataParallel:
    """Two layers, of which DDP expects the gradients of the second one first."""
    return DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2)), **options)


def train(model: DistributedDataParallel, batches: int = 1) -> None:
    for _ in range(batches):
        model(torch.randn(4, 2)).sum().backward()


def trainer(model: Any, ranks: int = 3) -> Any:
    """As much of a trainer as is asked."""
    return SimpleNamespace(world_size=ranks, strategy=SimpleNamespace(model=model))


def verdicts(model: Any, saved: GradientSums | None, ranks: int = 3) -> list[tuple[Level, str]]:
    return [(it.level, it.why) for it in gradient_sums.restore(trainer(model, ranks), saved, 3)]


def test_buckets_before_the_first_backward_are_not_sorted():
    assert not ddp.buckets(wrapped())


def test_buckets_after_the_first_backward_are_sorted_as_gradients_were_ready():
    model = wrapped()
    train(model)
    assert ddp.buckets(model) == ((3, 2, 1, 0),)


def test_buckets_sorted_as_they_were_read_back_the_same_and_stay_so():
    model = wrapped()
    assert ddp.sort(model, [[0, 2], [1, 3]]) == ((0, 2, 1, 3),), "both are below the size of one bucket"
    train(model, 3)
    assert ddp.buckets(model) == ((0, 2, 1, 3),)


def test_sorting_calls_no_hook_of_the_user_and_leaves_gradients_as_they_are():
    model, called = wrapped(), []
    first, *others = model.module.parameters()
    first.grad = torch.full_like(first, 7.0)
    for weight in (first, *others):
        weight.register_hook(called.append)
        weight.register_post_accumulate_grad_hook(called.append)
    ddp.sort(model, [[3, 2, 1, 0]])
    assert not called
    assert first.grad.eq(7.0).all()
    assert all(weight.grad is None for weight in others)


def test_saved_sums_are_restored_exactly():
    model = wrapped()
    train(model)
    saved = gradient_sums.capture(trainer(model), at_safe_point=True)
    assert saved == GradientSums(made=ddp.description(model), buckets=((3, 2, 1, 0),))
    assert verdicts(wrapped(), saved) == [(Level.EXACT, "DDP's buckets read back as in the file")]


def test_sums_of_a_wrapper_that_never_sorts_need_no_buckets():
    model = wrapped(find_unused_parameters=True)
    train(model)
    saved = gradient_sums.capture(trainer(model), at_safe_point=False)
    assert saved == GradientSums(made=ddp.description(model))
    assert verdicts(wrapped(find_unused_parameters=True), saved)[0][0] == Level.EXACT


def test_sums_of_two_ranks_need_nothing():
    assert gradient_sums.capture(trainer(wrapped(), 2), at_safe_point=True) is None
    assert verdicts(wrapped(), None, 2) == []


def test_sums_in_other_buckets_than_saved_are_approximate():
    saved = GradientSums(made=ddp.description(wrapped()), buckets=((3, 2), (1, 0)))
    assert verdicts(wrapped(), saved) == [(Level.APPROXIMATE, "DDP's buckets are not those in the file")]


def test_sums_of_a_wrapper_made_otherwise_are_approximate():
    saved = GradientSums(made=ddp.description(wrapped(find_unused_parameters=True)))
    ((level, why),) = verdicts(wrapped(), saved)
    assert level == Level.APPROXIMATE
    assert why.startswith("DDP had find_unused_parameters=True")


def test_sums_that_the_file_does_not_tell_are_approximate():
    assert verdicts(wrapped(), None) == [(Level.APPROXIMATE, "the file does not say in which order")]


def test_sums_saved_inside_a_batch_are_approximate():
    saved = gradient_sums.capture(trainer(wrapped()), at_safe_point=False)
    assert [it.level for it in gradient_sums.when_saved(saved)] == [Level.APPROXIMATE]
    assert verdicts(wrapped(), saved) == [(Level.APPROXIMATE, saved.unknown)]


def test_sums_of_a_strategy_without_ddp_are_approximate():
    saved = gradient_sums.capture(trainer(torch.nn.Linear(1, 1)), at_safe_point=True)
    assert saved.unknown == "SimpleNamespace sums the gradients in an order that is not known"


def test_sums_with_a_torch_that_lacks_a_name_are_approximate_and_name_it(monkeypatch):
    monkeypatch.setattr(ddp, "OF_TORCH", ("distributed.Reducer._no_such_method",))
    saved = gradient_sums.capture(trainer(wrapped()), at_safe_point=True)
    assert "torch.distributed.Reducer._no_such_method" in saved.unknown
    monkeypatch.setattr(ddp, "OF_TORCH", ())
    monkeypatch.setattr(ddp, "OF_DDP", ("_no_such_attribute",))
    assert ddp.missing(wrapped()) == "DistributedDataParallel._no_such_attribute"
