"""chemprop's notebook on training an MPNN for regression, on molecules whose SMILES are put together here."""

from itertools import product

from chemprop import data, featurizers, models, nn
from lightning import pytorch as pl
from rdkit.Chem import Crippen, MolFromSmiles

from checkpointable import Checkpointing

pl.seed_everything()
heads = ["O", "N", "Cl", "c1ccccc1", "C1CCCCC1", "CC(=O)", "N#C", "F"]
tails = ["O", "N", "Br", "C(=O)O", "S", "C#N", "OC"]
smiles = [f"{head}{'C' * length}{tail}" for head, length, tail in product(heads, range(1, 8), tails)]
points = [data.MoleculeDatapoint.from_smi(smi, [Crippen.MolLogP(MolFromSmiles(smi))]) for smi in smiles]
train_indices, val_indices, _ = data.make_split_indices([point.mol for point in points], "random", (0.82, 0.18, 0.0))
train_data, val_data, _ = data.split_data_by_indices(points, train_indices, val_indices, None)
featurizer = featurizers.SimpleMoleculeMolGraphFeaturizer()
train_dset = data.MoleculeDataset(train_data[0], featurizer)
scaler = train_dset.normalize_targets()
val_dset = data.MoleculeDataset(val_data[0], featurizer)
val_dset.normalize_targets(scaler)
train_loader = data.build_dataloader(train_dset, batch_size=32, num_workers=0)
val_loader = data.build_dataloader(val_dset, batch_size=32, num_workers=0, shuffle=False)
ffn = nn.RegressionFFN(output_transform=nn.UnscaleTransform.from_standard_scaler(scaler), dropout=0.1)
mpnn = models.MPNN(nn.BondMessagePassing(), nn.MeanAggregation(), ffn, batch_norm=True, metrics=[nn.metrics.RMSE()])
trainer = pl.Trainer(
    logger=False,
    enable_progress_bar=False,
    accelerator="cpu",
    deterministic=True,  # without it, two runs without a stop differ
    devices=1,
    max_epochs=4,
    callbacks=[Checkpointing(save_interval=2, dirpath="saved", resume="auto")],
)
trainer.fit(mpnn, train_loader, val_loader)
