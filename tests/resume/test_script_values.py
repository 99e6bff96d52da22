"""A script that gives other numbers than the file: both are named, and the file never claims one that is not used."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from nets import Net, load, loader, trainer

from checkpointable import CheckpointableWarning, ResumeError
from checkpointable.catalog.info import read_info

MIDDLE = {"save_interval": 2, "save_last_k": -1, "save_top_k": 0, "save_last": False}


class Tuned(Net):
    """Optimizer and loss by hyper-parameters."""

    def __init__(self, lr=0.1, decay=0.0, weight=1.0, step=3, **options):
        super().__init__(**{**MIDDLE, **options})
        self.save_hyperparameters("lr", "decay", "weight", "step")

    def compute_loss(self, batch, batch_idx):
        return self.hparams.weight * super().compute_loss(batch, batch_idx)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.decay)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, self.hparams.step)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


@pytest.fixture
def path(tmp_path):
    """Saved after the scheduler has moved the rate."""
    trainer(tmp_path).fit(Tuned(dirpath=tmp_path / "a"), loader(5))
    return tmp_path / "a/epoch_0_batch_4.ckpt"


def resume(path, net, caplog, **options):
    with caplog.at_level("INFO"):
        training = trainer(path.parent, **options)
        training.fit(net, loader(5), ckpt_path=path)
    [line] = [record.message for record in caplog.records if "resumes after" in record.message]
    return training, line.partition(f"from {path}: ")[2]


def test_schedule_that_has_moved_the_rate_is_no_difference(path, tmp_path, caplog):
    assert resume(path, Tuned(dirpath=tmp_path / "b", strict_resume=True), caplog)[1] == "exact"


OF_FILE = [
    ({"lr": 0.5}, "learning rate 0.1 from the file, the script says 0.5"),
    ({"decay": 0.3}, "weight decay 0.0 from the file, the script says 0.3"),
    ({"step": 4}, "step_size of the scheduler 3 from the file, the script says 4"),
]


@pytest.mark.parametrize(("change", "says"), OF_FILE)
def test_number_that_the_file_decides_leaves_the_run_exact_and_the_file_names_what_is_used(
    path, tmp_path, caplog, change, says
):
    training, line = resume(path, Tuned(dirpath=tmp_path / "b", **change), caplog, max_epochs=2)
    assert line == f"exact ({says})"
    assert training.optimizers[0].param_groups[0]["weight_decay"] == 0.0
    [name] = change
    saved = load(tmp_path / "b/epoch_1_batch_4.ckpt")["hyper_parameters"]
    assert saved == load(path)["hyper_parameters"]
    assert training.lightning_module.hparams[name] == change[name]  # the script's own, which Lightning gives to loggers


@pytest.mark.parametrize(("change", "says"), OF_FILE)
def test_number_that_the_file_decides_is_refused_when_strict(path, tmp_path, caplog, change, says):
    with pytest.raises(ResumeError, match="strict_resume=True") as caught:
        resume(path, Tuned(dirpath=tmp_path / "b", strict_resume=True, **change), caplog)
    assert f"\n  {says}\n" in str(caught.value)
    assert not any("Resume from" in record.message for record in caplog.records)


def test_resume_of_a_resumed_run_compares_with_what_was_used(path, tmp_path, caplog):
    resume(path, Tuned(dirpath=tmp_path / "b", lr=0.5), caplog, max_epochs=2)
    caplog.clear()
    again = tmp_path / "b/epoch_1_batch_2.ckpt"
    assert resume(again, Tuned(dirpath=tmp_path / "c", strict_resume=True), caplog, max_epochs=2)[1] == "exact"


def test_hyper_parameter_that_the_script_decides_is_named_and_refused_when_strict(path, tmp_path, caplog):
    _, line = resume(path, Tuned(dirpath=tmp_path / "b", weight=5.0), caplog, max_epochs=2)
    assert line == "exact but for: weight 5.0 from the script, the file says 1.0"
    assert load(tmp_path / "b/epoch_1_batch_2.ckpt")["hyper_parameters"]["weight"] == 5.0
    with pytest.raises(ResumeError, match=r"\n  weight 5.0 from the script, the file says 1.0\n"):
        resume(path, Tuned(dirpath=tmp_path / "c", weight=5.0, strict_resume=True), caplog)


def test_default_learning_rate_of_the_base_class_is_named(tmp_path, caplog):
    trainer(tmp_path).fit(Net(dirpath=tmp_path / "a", **MIDDLE), loader(5))
    path = tmp_path / "a/epoch_0_batch_2.ckpt"
    _, line = resume(path, Net(dirpath=tmp_path / "b", learning_rate=0.5), caplog)
    assert line == "exact (learning rate 0.001 from the file, the script says 0.5)"
    assert read_info(path).exactness == "exact"


class Data(L.LightningDataModule):
    def __init__(self, crop):
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        return loader(5)


def test_hyper_parameter_of_a_data_module_is_named(tmp_path, caplog):
    trainer(tmp_path).fit(Net(dirpath=tmp_path / "a", **MIDDLE), datamodule=Data(crop=8))
    with caplog.at_level("INFO"):
        trainer(tmp_path).fit(
            Net(dirpath=tmp_path / "b"), datamodule=Data(crop=9), ckpt_path=tmp_path / "a/epoch_0_batch_2.ckpt"
        )
    assert "exact but for: crop 9 from the script, the file says 8" in caplog.text


def test_arguments_of_this_library_are_no_difference(tmp_path, caplog):
    class Saved(Net):
        def __init__(self, **options):
            super().__init__(**{**MIDDLE, **options})
            self.save_hyperparameters()

    trainer(tmp_path).fit(Saved(dirpath=tmp_path / "a"), loader(5))
    net = Saved(dirpath=tmp_path / "b", strict_resume=True, save_interval=3)
    assert resume(tmp_path / "a/epoch_0_batch_2.ckpt", net, caplog)[1] == "exact"


def test_several_groups_and_optimizers_are_named_by_their_place(tmp_path, caplog):
    class Two(Net):
        def __init__(self, rates, **options):
            super().__init__(**{**MIDDLE, **options})
            self.rates, self.other = rates, torch.nn.Linear(2, 2)

        def configure_optimizers(self):
            layers = zip((self.layer, self.other), self.rates, strict=True)
            return torch.optim.SGD([{"params": layer.parameters(), "lr": rate} for layer, rate in layers])

    trainer(tmp_path).fit(Two((0.1, 0.2), dirpath=tmp_path / "a"), loader(5))
    _, line = resume(tmp_path / "a/epoch_0_batch_2.ckpt", Two((0.1, 0.3), dirpath=tmp_path / "b"), caplog)
    assert line == "exact (learning rate of parameter group 1 0.2 from the file, the script says 0.3)"


def test_finished_run_met_with_other_numbers_warns_and_is_refused_when_strict(tmp_path, caplog):
    trainer(tmp_path).fit(Net(dirpath=tmp_path, save_last=True), loader(2))
    path = tmp_path / "epoch_0_batch_2.ckpt"
    says = "This script gives other values, which were not used: learning rate 0.5, the file says 0.001. To train with"
    with pytest.warns(CheckpointableWarning, match=says):
        trainer(tmp_path).fit(Net(dirpath=tmp_path, learning_rate=0.5), loader(2), ckpt_path=path)
    strict = Net(dirpath=tmp_path, learning_rate=0.5, strict_resume=True)
    with pytest.raises(ResumeError, match=r"learning rate 0\.001 from the file, the script says 0\.5"):
        trainer(tmp_path).fit(strict, loader(2), ckpt_path=path)
    with caplog.at_level("INFO"):
        trainer(tmp_path).fit(Net(dirpath=tmp_path, strict_resume=True), loader(2), ckpt_path=path)
    assert "nothing is left to train." in caplog.text


def test_twin_without_the_numbers_as_they_were_made_names_nothing(path, tmp_path, caplog, monkeypatch):
    from checkpointable.resume import restorer

    monkeypatch.setattr(restorer, "compare", lambda file, script, parts: ([], {}))
    assert resume(path, Tuned(dirpath=tmp_path / "b", lr=0.5, weight=5.0), caplog)[1] == "exact"
