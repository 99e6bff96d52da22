"""Two gloo processes: trains, kills itself where told, and prints what rank 0 and rank 1 know."""

import json
import os
import sys
import warnings
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import lightning as L
import torch
from nets import Net, loader

from checkpointable import latest

where, epochs = Path(sys.argv[1]), int(sys.argv[2])
interval = sys.argv[3] if sys.argv[3] == "auto" else int(sys.argv[3])
warnings.simplefilter("ignore")


class Uneven(Net):
    """Each rank logs a score of its own; rank 0's counts."""

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        if not self.trainer.sanity_checking:
            self.log("score", float(self.current_epoch * (-1) ** self.global_rank))


L.seed_everything(1, verbose=False)
net = Uneven(
    dirpath=where, save_interval=interval, train_time_interval=timedelta(0), monitor="score", mode="max", save_last_k=2
)
trainer = L.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=epochs, logger=False, enable_progress_bar=False,
    enable_model_summary=False, default_root_dir=where,
)  # fmt: skip
trainer.fit(net, loader(8, shuffle=True), loader(4), ckpt_path=latest(where))
known = {
    "best": os.path.basename(net.best_model_path),
    "last": os.path.basename(net.last_model_path),
    "run": net._checkpointing.progress.run_id,
    "val_loss": net.best_val_loss,
    "weight": net.layer.weight.tolist(),
    "step": trainer.global_step,
}
(where / f"rank_{trainer.global_rank}.json").write_text(json.dumps(known))
torch.distributed.barrier()
