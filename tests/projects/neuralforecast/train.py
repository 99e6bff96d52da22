"""neuralforecast's quickstart: NHITS on the AirPassengers panel that it ships."""

import os

from neuralforecast import NeuralForecast
from neuralforecast.models import NHITS
from neuralforecast.utils import AirPassengersPanel

from checkpointable import Checkpointing

model = NHITS(
    h=12,
    input_size=24,
    max_steps=60,
    val_check_steps=10,
    windows_batch_size=16,
    dropout_prob_theta=0.1,
    random_seed=int(os.environ["PL_GLOBAL_SEED"]),
    accelerator="cpu",
    logger=False,
    enable_progress_bar=False,
    enable_checkpointing=True,
    callbacks=[Checkpointing(monitor="ptl/val_loss", every_n_train_steps=2, dirpath="saved", resume="auto")],
)
forecast = NeuralForecast(models=[model], freq="ME")
forecast.fit(df=AirPassengersPanel, val_size=12)
