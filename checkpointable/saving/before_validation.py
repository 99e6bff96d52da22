"""The state before a validation, which is saved if a signal cuts the validation short.

The batch is over, and its validation is to come: a resume runs it whole. Nothing is written before there is a signal,
so what is small is kept as it was. Weights are not changed by a validation, unless its hooks swap in others, such as an
average. Lightning's own average is swapped back. Where user code has such hooks, the weights are copied to the CPU
before, but not once they have been seen to change none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from checkpointable.lightning_internals import averaging
from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals.tree import is_overridden
from checkpointable.resume.frozen_part import is_plain, seen
from checkpointable.resume.state import RunState
from checkpointable.saving.end_state import KeptState, digest
from checkpointable.saving.progress import Progress

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_MAY_SWAP = ("on_validation_start", "on_validation_epoch_start", "on_validation_model_eval")
_FEW_BYTES = 16 << 20  # of buffers, which are kept for each validation: user code may change them anywhere in it


class BeforeValidation(KeptState):
    """The state before one validation.

    Args:
        swaps: Whether hooks of the user have changed weights in the validation before; ``None`` if it is the first.
    """

    def __init__(self, trainer: Trainer, progress: Progress, state: RunState, *, swaps: bool | None) -> None:
        super().__init__(trainer, replace(state, before_validation=True))
        self._progress, self._has_begun = progress, False
        self._buffers = list(trainer.lightning_module.buffers())
        few = sum(buffer.numel() * buffer.element_size() for buffer in self._buffers) <= _FEW_BYTES
        self._kept = [buffer.detach().clone() for buffer in self._buffers] if few else []
        self._digests = [] if few else [digest(buffer) for buffer in self._buffers]
        tensors = list(_tensors(trainer)) if _hooks_of_users(trainer) else []
        copied = swaps is not False or not all(is_plain(tensor) for tensor in tensors)
        self._weights = [tensor.detach().to("cpu", copy=True) for tensor in tensors] if copied else []
        self._seen = [seen(tensor) for tensor in tensors if is_plain(tensor)]

    def begin(self, trainer: Trainer, swaps: bool | None) -> bool | None:
        """After its first hooks have run: return whether hooks of the user have changed weights now, or before."""
        if not self._has_begun:
            self._has_begun = True
            swaps = bool(swaps) or self._have_changed(trainer)
        return swaps

    def return_to(self, trainer: Trainer) -> Progress | None:
        """Give the module the weights that it had, and return the progress of that time; ``None`` if they are lost."""
        if self._has_begun:
            averaging.swap_back(trainer)
        for tensor, saved in zip(_tensors(trainer), self._weights, strict=False):
            tensor.data = saved.to(tensor.device)  # new memory: what is swapped in may be used elsewhere
        for buffer, kept in zip(self._buffers, self._kept, strict=False):
            buffer.data.copy_(kept)
        trainer.training = True  # as Lightning sets it after a validation
        lost = self._have_changed(trainer) and not self._weights
        lost = lost or [digest(buffer) for buffer in self._buffers[: len(self._digests)]] != self._digests
        return None if lost else self._progress

    def _have_changed(self, trainer: Trainer) -> bool:
        tensors = (tensor for tensor in _tensors(trainer) if is_plain(tensor))
        return bool(self._seen) and [seen(tensor) for tensor in tensors] != self._seen


def _hooks_of_users(trainer: Trainer) -> bool:
    """Whether user code runs before the first batch of a validation."""
    owners = [trainer.lightning_module, *trainer_callbacks.callbacks(trainer)]
    return any(is_overridden(owner, *_MAY_SWAP) for owner in owners)


def _tensors(trainer: Trainer) -> Iterator[torch.Tensor]:
    module = trainer.lightning_module
    return itertools.chain(module.parameters(), module.buffers())
