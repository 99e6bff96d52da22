"""Trains ten epochs of three batches, and dies of SIGKILL after so many batches of this process."""

import os
import signal
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from nets import Net, loader, trainer

from checkpointable.catalog.select import latest

where, last = Path(sys.argv[1]), int(sys.argv[2])


class Dying(Net):
    done = 0

    def training_step(self, batch, batch_idx):
        if self.done == last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.done += 1
        return super().training_step(batch, batch_idx)


warnings.simplefilter("ignore")
torch.manual_seed(last)
net = Dying(dirpath=where, save_interval=2, async_save=False)
trainer(where, max_epochs=10).fit(net, loader(3), loader(2), ckpt_path=latest(where))
