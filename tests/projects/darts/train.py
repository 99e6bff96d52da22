"""darts' example of a TCN, on series that its timeseries_generation makes."""

import os

import numpy as np
import pytorch_lightning as pl
import torch
from darts.models import TCNModel
from darts.utils.timeseries_generation import gaussian_timeseries, sine_timeseries
from lightning_fabric.plugins import TorchCheckpointIO
from torchmetrics import MetricCollection

from checkpointable import Checkpointing

# darts saves these in its checkpoints, and uses them when one is loaded
torch.serialization.add_safe_globals([torch.nn.MSELoss, torch.optim.Adam, MetricCollection])
np.random.seed(0)  # the noise of the series
series = sine_timeseries(length=400, value_frequency=0.03) + gaussian_timeseries(length=400, std=0.1)
pl.seed_everything()  # darts leaves Python's own generator unseeded
model = TCNModel(
    input_chunk_length=24,
    output_chunk_length=12,
    n_epochs=4,
    dropout=0.1,
    batch_size=32,
    random_state=int(os.environ["PL_GLOBAL_SEED"]),
    pl_trainer_kwargs={
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_checkpointing": True,
        "plugins": [TorchCheckpointIO()],  # darts' own would write files that only Lightning and darts know
        "callbacks": [Checkpointing(save_interval=2, dirpath="saved", resume="auto")],
    },
)
model.fit(series[:360].astype(np.float32), val_series=series[300:].astype(np.float32))
