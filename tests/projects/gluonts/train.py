"""gluonts' tutorial on DeepAR, on series that are made here."""

import lightning as L
import numpy as np
import pandas as pd
from gluonts.dataset.pandas import PandasDataset
from gluonts.torch import DeepAREstimator

from checkpointable import Checkpointing

L.seed_everything()
days = pd.date_range("2025-01-01", periods=200, freq="D")
choose = np.random.default_rng(0)
waves = [np.sin(np.arange(200) * 2 * np.pi / 7 + shift) + choose.normal(0, 0.1, 200) for shift in range(10)]
dataset = PandasDataset({str(item): pd.DataFrame({"target": wave}, index=days) for item, wave in enumerate(waves)})
estimator = DeepAREstimator(
    freq="D",
    prediction_length=14,
    num_layers=2,
    hidden_size=16,
    num_batches_per_epoch=10,
    trainer_kwargs={
        "max_epochs": 4,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "callbacks": [Checkpointing(monitor="train_loss", save_interval=2, dirpath="saved", resume="auto")],
    },
)
predictor = estimator.train(dataset)
