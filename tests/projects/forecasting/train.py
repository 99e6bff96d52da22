"""pytorch-forecasting's tutorial on the Temporal Fusion Transformer, on the series that its generate_ar_data makes."""

import warnings

import lightning.pytorch as pl
from pytorch_forecasting import TemporalFusionTransformer, TimeSeriesDataSet
from pytorch_forecasting.data import GroupNormalizer
from pytorch_forecasting.data.examples import generate_ar_data
from pytorch_forecasting.metrics import QuantileLoss

from checkpointable import Checkpointing

warnings.filterwarnings("ignore")
pl.seed_everything()
data = generate_ar_data(seasonality=10.0, timesteps=100, n_series=20, seed=42)
data["series"] = data["series"].astype(str)
training = TimeSeriesDataSet(
    data[data.time_idx <= 80],
    time_idx="time_idx",
    target="value",
    group_ids=["series"],
    min_encoder_length=15,
    max_encoder_length=30,
    max_prediction_length=6,
    static_categoricals=["series"],
    time_varying_known_reals=["time_idx"],
    time_varying_unknown_reals=["value"],
    target_normalizer=GroupNormalizer(groups=["series"]),
    randomize_length=True,
)
validation = TimeSeriesDataSet.from_dataset(training, data, min_prediction_idx=81, stop_randomization=True)
train_dataloader = training.to_dataloader(train=True, batch_size=64, num_workers=0)
val_dataloader = validation.to_dataloader(train=False, batch_size=128, num_workers=0)
trainer = pl.Trainer(
    max_epochs=4,
    accelerator="cpu",
    gradient_clip_val=0.1,
    limit_train_batches=10,
    logger=False,
    enable_progress_bar=False,
    callbacks=[Checkpointing(save_interval=2, dirpath="saved", resume="auto")],
)
model = TemporalFusionTransformer.from_dataset(
    training,
    learning_rate=0.03,
    hidden_size=8,
    attention_head_size=2,
    dropout=0.1,
    hidden_continuous_size=4,
    loss=QuantileLoss(),
    log_interval=0,
    optimizer="ranger",
    reduce_on_plateau_patience=4,
)
trainer.fit(model, train_dataloader, val_dataloader, weights_only=False)
