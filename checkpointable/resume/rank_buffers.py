"""The buffers of each rank, such as the running means of batch norm, where DDP lets them differ.

DDP gives all ranks those of rank 0 before each batch, but not in manual optimization, inside an accumulation window, or
with ``broadcast_buffers=False``. Lightning's checkpoint has those of rank 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from checkpointable.lightning_internals import ddp, model_parallel

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def capture(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The buffers of this rank, on the CPU; none where all ranks will have those of rank 0 in the next batch."""
    shared = ddp.will_share_buffers(trainer) and not model_parallel.parts_model(trainer)
    if trainer.world_size == 1 or shared:
        return {}
    module = trainer.lightning_module
    in_file = module.state_dict().keys()
    return {name: buffer.detach().cpu() for name, buffer in module.named_buffers() if name in in_file}


def restore(trainer: Trainer, saved: Mapping[str, torch.Tensor]) -> None:
    """Restore what ``capture`` returned, and let DDP leave it as it is in the next batch."""
    if not saved or trainer.world_size == 1:
        return
    ddp.keep_buffers(trainer)
    buffers = dict(trainer.lightning_module.named_buffers())
    with torch.no_grad():
        for name in saved.keys() & buffers.keys():
            if saved[name].shape == buffers[name].shape:
                buffers[name].copy_(saved[name])
