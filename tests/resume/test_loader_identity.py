"""A loader that reads other data than when the file was saved is never called exact, nor is one of a validation."""

from __future__ import annotations

import itertools

import pytest
import torch
from nets import Net, loader, trainer
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

from checkpointable import CheckpointableWarning, ResumeError
from checkpointable.resume import loader_position, loader_verdict

SAVED = {"save_interval": 2, "save_last_k": -1}
DATA = loader(8).dataset


class Wrapping(Dataset):
    """Has a data set, as those that add a transform do."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def batches(data, **options):
    return DataLoader(data, batch_size=4, **options)


def split():
    return batches(random_split(DATA, [20, 12])[0], shuffle=True)


def wrapped_split():
    return batches(Wrapping(ConcatDataset([Subset(DATA, range(8)), random_split(DATA, [12, 20])[0]])))


def drawn_indices():
    return batches(DATA, sampler=SubsetRandomSampler(torch.randperm(32)[:20].tolist()))


def drawn_weights():
    return batches(DATA, sampler=WeightedRandomSampler(torch.rand(32), 20))


def drawn_tensors():
    return batches(TensorDataset(torch.randn(20, 2), torch.arange(20) % 2))


SIZES = itertools.cycle((20, 19))  # of the first run, and of the second


def fewer_samples():
    return batches(Subset(DATA, range(next(SIZES))))


OTHERS = {
    split: "dataset.indices differs from that when saved, as a split that is drawn without a fixed seed does",
    wrapped_split: "dataset.samples.datasets.1.indices differs from that when saved",
    drawn_indices: "sampler.indices differs from that when saved",
    drawn_weights: "sampler.weights differs from that when saved",
    drawn_tensors: "dataset.tensors differs from that when saved",
    fewer_samples: "20 samples of Subset when saved, 19 samples of Subset now",
}


def save_and_resume(tmp_path, make):
    """Resume with a loader that a script under another seed makes, where nothing but exact is allowed."""
    for seed in (1, 2):
        torch.manual_seed(seed)
        path = None if seed == 1 else tmp_path / "1/epoch_0_batch_2.ckpt"
        net = Net(dirpath=tmp_path / str(seed), strict_resume=True, **SAVED)
        trainer(tmp_path).fit(net, make(), loader(1), ckpt_path=path)


@pytest.mark.parametrize("make", OTHERS)
def test_loader_of_other_data_is_not_exact(tmp_path, make):
    with pytest.raises(ResumeError) as caught:
        save_and_resume(tmp_path, make)
    assert OTHERS[make] in str(caught.value)


def test_loader_of_other_data_is_called_exact_where_it_is_not_compared(tmp_path, monkeypatch):
    """The twin."""
    identity = loader_position.identity
    monkeypatch.setattr(loader_position, "identity", lambda it: {**identity(it), "samples": "", "data_digests": {}})
    save_and_resume(tmp_path, split)


def seeded_split():
    return batches(random_split(DATA, [20, 12], generator=torch.Generator().manual_seed(1))[0], shuffle=True)


def seeded_tensors():
    generator = torch.Generator().manual_seed(1)
    return batches(TensorDataset(torch.randn(20, 2, generator=generator).T.contiguous().T, torch.arange(20) % 2))


@pytest.mark.parametrize("make", [seeded_split, seeded_tensors])
def test_loader_of_the_same_data_is_exact(tmp_path, make):
    save_and_resume(tmp_path, make)


def test_generator_that_was_not_there_when_saved_is_not_exact(tmp_path):
    makes = iter([loader(5, shuffle=True), batches(DATA, shuffle=True, generator=torch.Generator())])
    with pytest.raises(ResumeError, match=r"sampler.generator, a random generator, was not there when saved"):
        save_and_resume(tmp_path, lambda: next(makes))


VALIDATIONS = {
    "2 batches when saved, 3 now": lambda: loader(3),
    "4 samples a batch when saved, 8 now": lambda: DataLoader(loader(2).dataset, batch_size=8),
    "by BatchSampler of RandomSampler now": lambda: loader(2, shuffle=True),
    "dataset.tensors differs from that when saved": lambda: loader(2, seed=1),
    "validation loaders: approximate .1 when saved, 2 now": lambda: [loader(2), loader(2)],
    "validation loaders: approximate .given when saved, none now": lambda: None,
}


def resume_with_validation(tmp_path, validation, *, every=1, **options):
    trainer(tmp_path, max_epochs=3, check_val_every_n_epoch=every).fit(
        Net(dirpath=tmp_path / "a", **SAVED), loader(5), loader(2)
    )
    again = trainer(tmp_path, max_epochs=3, check_val_every_n_epoch=every)
    path = tmp_path / "a/epoch_2_batch_2.ckpt"
    again.fit(Net(dirpath=tmp_path / "b", monitor=None, **options), loader(5), validation, ckpt_path=path)


@pytest.mark.parametrize("says", VALIDATIONS)
def test_other_validation_loader_is_not_exact(tmp_path, says):
    with pytest.raises(ResumeError, match=says):
        resume_with_validation(tmp_path, VALIDATIONS[says](), strict_resume=True)


def test_other_validation_loader_is_called_exact_where_it_is_not_compared(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr(loader_verdict, "of_validation", lambda saved, positions: iter(()))
    resume_with_validation(tmp_path, loader(3), strict_resume=True)


def late(tmp_path, **options):
    """The file is saved in the third epoch, and resumed in it, where no validation is due before the fourth."""
    fit = trainer(tmp_path, max_epochs=4, check_val_every_n_epoch=2)
    fit.fit(Net(dirpath=tmp_path / "a", **SAVED), loader(5), loader(2))
    again, path = trainer(tmp_path, max_epochs=4, check_val_every_n_epoch=2), tmp_path / "a/epoch_2_batch_2.ckpt"
    again.fit(Net(dirpath=tmp_path / "b", **options), loader(5), loader(3), ckpt_path=path)


def test_other_validation_loader_that_is_made_late_is_a_warning(tmp_path):
    with pytest.warns(CheckpointableWarning, match=r"is not exact: validation loader: approximate .2 batches when sav"):
        late(tmp_path)


def test_other_validation_loader_that_is_made_late_is_refused_when_strict(tmp_path):
    with pytest.raises(ResumeError, match="Resume with strict_resume=False"):
        late(tmp_path, strict_resume=True)
