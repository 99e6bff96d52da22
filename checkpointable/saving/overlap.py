"""Which tensors may be copied while training goes on, and the moment at which that has to be done.

Parameters and the state of their optimizers change in an optimizer's step, so the forward and backward before it leave
time for the copy. Lightning's ``step`` is given a closure that runs these: there the wait comes behind it, in
``on_before_optimizer_step``. Any other step waits before it begins. Callbacks that swap weights do so around
validation and at the end of an epoch: the copy is waited for there, too.

User code may change parameters elsewhere, past torch's count of changes (``p.data.clamp_()``). So the first save of a
fit copies at once, and is compared with the parameters before the next step: only where nothing has changed them do
later saves by interval overlap. Those of the best, at an epoch's end and the last are worth the wait in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.optim import Optimizer

from checkpointable.lightning_internals import trainer as internals


def steady_tensors(trainer: Trainer) -> Iterator[torch.Tensor]:
    """The tensors that only a step of an optimizer that we hear of changes."""
    for optimizer in _optimizers(trainer):
        for group in optimizer.param_groups:
            yield from group["params"]
        for state in optimizer.state.values():
            if isinstance(state, Mapping):
                yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def wait_before_steps(trainer: Trainer, wait: Callable[[], None]) -> None:
    """Have ``wait`` called before a step that changes parameters at once."""

    def before(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        closure = kwargs.get("closure") or next((arg for arg in args if arg is not optimizer), None)
        if not internals.is_own_closure(closure):
            wait()

    for optimizer in _optimizers(trainer):
        optimizer.register_step_pre_hook(before)


def _optimizers(trainer: Trainer) -> Iterator[Optimizer]:
    return (optimizer for optimizer in trainer.strategy.optimizers if isinstance(optimizer, Optimizer))
