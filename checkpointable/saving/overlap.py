"""Which tensors may be copied while training continues, and when that copy must be complete.

Parameters and optimizer state change only in an optimizer's step, so the forward and backward before it leave time for
the copy. Lightning passes ``step`` a closure that runs these: there the copy is waited for after the closure, in
``on_before_optimizer_step``. Any other step waits before it begins. Callbacks that swap weights do so around validation
and at the end of an epoch: the copy is waited for there, too.

User code may change parameters elsewhere, in ways that torch does not count (``p.data.clamp_()``). So the first save of
a fit is copied at once and compared with the parameters before the next step. Only if nothing has changed may the
copies of later periodic saves overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.optim import Optimizer

from checkpointable.lightning_internals import trainer as internals


def changed_only_by_steps(trainer: Trainer) -> Iterator[torch.Tensor]:
    """The tensors that only a step of the trainer's optimizers changes: parameters and optimizer state."""
    for optimizer in _optimizers(trainer):
        for group in optimizer.param_groups:
            yield from group["params"]
        for state in optimizer.state.values():
            if isinstance(state, Mapping):
                yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def call_before_steps(trainer: Trainer, wait: Callable[[], None]) -> None:
    """Have ``wait`` called before each step that changes parameters as soon as it is called."""

    def before(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        closure = kwargs.get("closure") or next((arg for arg in args if arg is not optimizer), None)
        if not internals.is_own_closure(closure):
            wait()

    for optimizer in _optimizers(trainer):
        optimizer.register_step_pre_hook(before)


def _optimizers(trainer: Trainer) -> Iterator[Optimizer]:
    return (optimizer for optimizer in trainer.strategy.optimizers if isinstance(optimizer, Optimizer))
