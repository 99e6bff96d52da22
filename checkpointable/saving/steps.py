"""Counts batches and optimizer steps, and knows whether the last batch is inside an accumulation window.

Lightning counts a step for every optimizer, and none for one that is stepped past its wrappers. So in manual
optimisation a step is a batch in which at least one optimizer stepped, and a batch in which none did is in a window.
User code may create optimizers at any time without registering them, so torch's hook for the steps of all optimizers
is used, from the start of the training to its end.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from checkpointable.lightning_internals import model_parallel
from checkpointable.lightning_internals import trainer as internals
from checkpointable.policy.position import Position

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Steps:
    """Counts for one run."""

    def __init__(self) -> None:
        self._is_automatic = True
        self._stepped = False
        self.stepped = (False, False)  # ever, and in the last batch
        self._depth = 0  # a tuner's trial is a training inside a training
        self._forget: weakref.finalize[Any, Steps] | None = None
        self._hooks: list[RemovableHandle] = []

    def listen(self, trainer: Trainer) -> None:
        """Until ``close``: in manual optimisation note every step."""
        self._depth += 1
        self._is_automatic = trainer.lightning_module.automatic_optimization
        if self._depth == 1 and not self._is_automatic:
            listener = weakref.ref(self)

            def note(optimizer: Optimizer, *_: Any) -> None:
                steps = listener()
                if steps is not None and _trains(trainer, optimizer):
                    steps._stepped = True

            self._forget = weakref.finalize(self, register_optimizer_step_post_hook(note).remove)

    def guard(self, trainer: Trainer, wait: Callable[[], None]) -> None:
        """Until ``unguard``: call ``wait`` before each step, as a copy of the parameters is being made.

        It is not called where Lightning's closure runs first, which calls ``on_before_optimizer_step``.
        """

        def before(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            closure = kwargs.get("closure") or next((arg for arg in args if arg is not optimizer), None)
            if not internals.is_own_closure(closure):
                wait()

        self._hooks += [optimizer.register_step_pre_hook(before) for optimizer in _optimizers(trainer)]

    def unguard(self) -> None:
        """Stop that. It must not be called inside a step, which iterates over these hooks."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def close(self) -> None:
        """Stop, when the training ends. The user may keep the optimizers for another one."""
        self._depth = max(self._depth - 1, 0)
        if self._depth:
            return
        self.unguard()
        if self._forget is not None:
            self._forget()
            self._forget = None

    def count(self, trainer: Trainer, before: Position) -> Position:
        """The position after a batch."""
        now = internals.counted(trainer)
        self._is_automatic = trainer.lightning_module.automatic_optimization
        if self._is_automatic:
            return now
        ever = self.stepped[0] or self._stepped
        stepped, self._stepped = self._stepped or not ever, False
        self.stepped = ever, stepped
        return replace(now, step=before.step + stepped)

    def in_window(self, trainer: Trainer) -> bool:
        """Whether gradients are being accumulated, and the next batch adds to them."""
        if self._is_automatic:
            return internals.inside_window(trainer)
        return self.stepped == (True, False)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: they note no steps."""
        return {**self.__dict__, "_depth": 0, "_forget": None, "_hooks": []}


def _trains(trainer: Trainer, optimizer: Optimizer) -> bool:
    """Whether an optimizer changes this training's module, and not, for example, inputs or another module."""
    if any(optimizer is known for known in trainer.strategy.optimizers):
        return True
    weights = {id(weight) for weight in trainer.lightning_module.parameters()}
    return any(id(weight) in weights for group in optimizer.param_groups for weight in group["params"])


def changed_only_by_steps(trainer: Trainer) -> Iterator[torch.Tensor]:
    """The tensors that only a step of the trainer's optimizers changes: parameters and optimizer state.

    None where they lie in parts on the ranks: a checkpoint has others.
    """
    if model_parallel.parts_model(trainer):
        return
    for optimizer in _optimizers(trainer):
        for group in optimizer.param_groups:
            yield from group["params"]
        for state in optimizer.state.values():
            if isinstance(state, Mapping):
                yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def _optimizers(trainer: Trainer) -> Iterator[Optimizer]:
    return (optimizer for optimizer in trainer.strategy.optimizers if isinstance(optimizer, Optimizer))
