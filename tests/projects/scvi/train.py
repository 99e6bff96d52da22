"""scvi-tools' tutorial on SCVI (api_overview), on the cells that its synthetic_iid makes."""

import os

import numpy as np
import scvi

from checkpointable import Checkpointing

np.random.seed(0)  # the cells that synthetic_iid makes
adata = scvi.data.synthetic_iid(batch_size=300)
scvi.settings.seed = int(os.environ["PL_GLOBAL_SEED"])
scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
model = scvi.model.SCVI(adata, n_layers=2, n_latent=10)
model.train(
    max_epochs=4,
    batch_size=48,
    accelerator="cpu",
    check_val_every_n_epoch=1,
    early_stopping=True,
    enable_checkpointing=True,
    enable_progress_bar=False,
    datasplitter_kwargs={"external_indexing": [np.arange(480), np.arange(480, 600)]},
    callbacks=[Checkpointing(monitor="elbo_validation", save_interval=2, dirpath="saved", resume="auto")],
)
