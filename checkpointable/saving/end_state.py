"""The state at which a training ended, for a checkpoint that is saved by hand after that.

The hooks of the end and the user's script run in between. They may count, draw random numbers and swap weights, and the
end of an epoch that stopped early is no part of a longer run. So everything small is kept as it was, and a digest shows
whether the weights, the optimizers and the schedulers still are as they were.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from checkpointable.lightning_internals import trainer as internals
from checkpointable.resume.state import RunState
from checkpointable.storage.format.same import bytes_of

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_CHUNK_BYTES = 1 << 20  # at a time, so that three times as much is taken beside the weights


class KeptState:
    """Keeps what a checkpoint holds beside weights, optimizers and schedulers; ``state`` is the value of our key."""

    def __init__(self, trainer: Trainer, state: RunState) -> None:
        self.state = replace(copy.deepcopy(replace(state, gradients={})), gradients=state.gradients)
        self._loops = copy.deepcopy(trainer.fit_loop.state_dict())
        self._callbacks = copy.deepcopy(internals.callback_states(trainer))

    def put_into(self, checkpoint: dict[str, Any]) -> RunState:
        """Replace the counters of loops and the states of callbacks by those that are kept; return ``state``."""
        if "loops" in checkpoint:  # not where a file holds weights only
            checkpoint["loops"]["fit_loop"] = self._loops
            checkpoint["callbacks"].update(self._callbacks)
        return self.state


class EndState(KeptState):
    """The state at the end, with a digest of the rest."""

    def __init__(self, trainer: Trainer, state: RunState) -> None:
        super().__init__(trainer, state)
        self._digest = self._of(trainer)

    def is_unchanged(self, trainer: Trainer) -> bool:
        """Whether weights, gradients, optimizers and schedulers are as they were. Collective."""
        unchanged = self._digest is not None and self._of(trainer) == self._digest
        return bool(trainer.strategy.reduce_boolean_decision(unchanged))

    def _of(self, trainer: Trainer) -> list[Any] | None:
        """The digest; ``None`` if there is no memory for it, so that nothing is known and training goes on."""
        try:
            found: list[Any] = [digest(tensor) for tensor in (*_tensors(trainer), *self.state.gradients.values())]
        except (MemoryError, RuntimeError):  # torch's allocators raise RuntimeError
            return None
        for optimizer in trainer.optimizers:
            found += [{name: it for name, it in group.items() if name != "params"} for group in optimizer.param_groups]
        found += [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        return [it if isinstance(it, tuple) else repr(it) for it in found]


def at_end(trainer: Trainer, capture: Callable[..., RunState]) -> EndState | None:
    """The state at the end, by ``Session.state``; ``None`` if others save in shards. Collective."""
    if not internals.saves_whole_files(trainer):
        return None
    return EndState(trainer, capture(trainer, at_safe_point=True, weights_only=False))


def _tensors(trainer: Trainer) -> Iterator[torch.Tensor]:
    yield from (value for value in trainer.lightning_module.state_dict().values() if isinstance(value, torch.Tensor))
    for optimizer in trainer.optimizers:
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def digest(tensor: torch.Tensor) -> tuple[Any, ...]:
    """A sum over a tensor's bytes, weighted by their places, on its device; equal on every device."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        return (repr(tensor),)
    flat = bytes_of(tensor.detach())
    total = 0
    for number, chunk in enumerate(torch.split(flat, _CHUNK_BYTES), start=1):
        padded = torch.nn.functional.pad(chunk, (0, -chunk.numel() % 8)).view(torch.int64)
        places = torch.arange(1, 2 * padded.numel(), 2, device=padded.device)  # odd, so that no bit is lost
        total += number * int((padded * places).sum())
    return tuple(tensor.shape), str(tensor.dtype), total
