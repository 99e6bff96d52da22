"""Trains on three ranks, of which the last does not come to the first save.

Arguments: a directory; the timeout; and whether the last rank ``"hangs"`` or ``"dies"``.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import lightning as L
from nets import Net, loader

where, seconds, what = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
warnings.simplefilter("ignore")


class Slow(L.Callback):
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_rank == 2 and trainer.global_step == 2:
            while what == "hangs" and not all((where / f"ended_{rank}").exists() for rank in (0, 1)):
                time.sleep(0.1)
            os._exit(3)


try:
    L.Trainer(
        accelerator="cpu", devices=3, strategy="ddp", max_epochs=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=where, callbacks=[Slow()],
    ).fit(Net(dirpath=where, save_interval=2, save_top_k=0, save_timeout=seconds), loader(12))  # fmt: skip
finally:
    (where / f"ended_{os.environ['LOCAL_RANK']}").touch()
