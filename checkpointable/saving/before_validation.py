"""The state before a validation, which is saved if a signal cuts the validation short.

The batch is over, and its validation is to come: a resume runs it whole. Nothing is written before there is a signal,
so what is small is kept as it was. Weights are not changed by a validation, unless its hooks swap in others, such as an
average: where user code has such hooks, the weights are copied to the CPU before. Lightning's own average is swapped
back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from checkpointable.lightning_internals import averaging
from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.resume.state import RunState
from checkpointable.saving.end_state import KeptState
from checkpointable.saving.progress import Progress

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_MAY_SWAP = ("on_validation_start", "on_validation_epoch_start", "on_validation_model_eval")
_KNOWN = ("lightning", "pytorch_lightning", "checkpointable")


class BeforeValidation(KeptState):
    """The state before one validation.

    Attributes:
        has_begun: Whether its hooks have run, so that weights may have been swapped.
    """

    def __init__(self, trainer: Trainer, progress: Progress, state: RunState) -> None:
        super().__init__(trainer, replace(state, before_validation=True))
        self._progress = progress
        self.has_begun = False
        copies = _hooks_of_users(trainer)
        self._weights = [tensor.detach().to("cpu", copy=True) for tensor in _tensors(trainer)] if copies else []

    def return_to(self, trainer: Trainer) -> Progress:
        """Give the module the weights that it had, and return the progress of that time."""
        if self.has_begun:
            averaging.swap_back(trainer)
        for tensor, saved in zip(_tensors(trainer), self._weights, strict=False):
            tensor.data = saved.to(tensor.device)  # new memory: what is swapped in may belong to somebody
        trainer.training = True  # as Lightning sets it after a validation
        return self._progress


def _hooks_of_users(trainer: Trainer) -> bool:
    """Whether user code runs before the first batch of a validation."""
    owners = [trainer.lightning_module, *trainer_callbacks.callbacks(trainer)]
    hooks = [getattr(type(owner), name, None) for owner in owners for name in _MAY_SWAP]
    return any(hook is not None and hook.__module__.partition(".")[0] not in _KNOWN for hook in hooks)


def _tensors(trainer: Trainer) -> Iterator[torch.Tensor]:
    module = trainer.lightning_module
    return itertools.chain(module.parameters(), module.buffers())
