"""A run resumes whatever is among its hyper-parameters; what a resume needs and cannot load is named."""

from __future__ import annotations

import pickle
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from nets import Net, loader, trainer
from odd_values import ODD, Color, Marked

from checkpointable import CheckpointableWarning, NotLoadedError
from checkpointable.catalog.info import read_info
from checkpointable.storage.format.placeholder import Placeholder


class Odd(Net):
    """Saves its argument as a hyper-parameter."""

    def __init__(self, odd: Any, **options: Any) -> None:
        super().__init__(**options)
        self.save_hyperparameters("odd")


class Data(L.LightningDataModule):
    """Saves its argument as a hyper-parameter."""

    def __init__(self, odd: Any) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> Any:
        return loader(2)


def trained(tmp_path, odd: Any, **options: Any) -> str:
    net = Odd(odd, dirpath=tmp_path)
    trainer(tmp_path, **options).fit(net, loader(2))
    return net.last_model_path


@pytest.mark.filterwarnings("ignore:Attribute 'odd' is an instance of `nn.Module`")  # Lightning's
@pytest.mark.parametrize("kind", ODD)
def test_run_with_an_odd_hyper_parameter_resumes_and_saves(tmp_path, kind):
    path = trained(tmp_path, ODD[kind])
    net = Odd(ODD[kind], dirpath=tmp_path)
    trainer(tmp_path, max_epochs=2).fit(net, loader(2), ckpt_path=path)
    assert read_info(net.last_model_path).epoch == 1
    again = torch.load(net.last_model_path, weights_only=False)["hyper_parameters"]["odd"]
    assert type(again) is type(ODD[kind]), "the value of the script, and no placeholder"


@pytest.mark.parametrize("kind", ["numpy scalar", "deque", "enum"])
def test_run_with_an_odd_hyper_parameter_and_lightnings_reading_is_refused(tmp_path, kind):
    """The twin: without placeholders the file is refused."""

    class Own(TorchCheckpointIO):
        pass

    path = trained(tmp_path, ODD[kind])
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        trainer(tmp_path, max_epochs=2, plugins=[Own()]).fit(Odd(None), loader(2), ckpt_path=path)


@pytest.mark.parametrize("weights_only", [None, True])
@pytest.mark.parametrize("method", ["validate", "test", "predict"])
def test_evaluation_does_not_need_the_hyper_parameters(tmp_path, method, weights_only):
    class Predicting(Odd):
        def predict_step(self, batch, batch_idx):
            return self.layer(batch[0])

    path = trained(tmp_path, ODD["tree"])
    net = Predicting(None)
    getattr(trainer(tmp_path), method)(net, loader(2), ckpt_path=path, weights_only=weights_only)
    saved = torch.load(path, weights_only=False)["state_dict"]
    assert net.layer.weight.equal(saved["layer.weight"])


def test_resume_with_weights_only_false_loads_the_objects_themselves(tmp_path):
    seen = []

    class Watching(Odd):
        def on_load_checkpoint(self, checkpoint):
            super().on_load_checkpoint(checkpoint)
            seen.append(checkpoint["hyper_parameters"]["odd"])

    path = trained(tmp_path, Color.RED)
    for weights_only in (False, True, None):
        trainer(tmp_path, max_epochs=2).fit(Watching(1), loader(2), ckpt_path=path, weights_only=weights_only)
    assert seen[0] is Color.RED
    assert [type(it) for it in seen[1:]] == [Placeholder] * 2
    assert seen[1] == seen[2]


def test_run_of_a_data_module_with_an_odd_hyper_parameter_resumes(tmp_path):
    net = Net(dirpath=tmp_path)
    trainer(tmp_path).fit(net, datamodule=Data(ODD["defaultdict"]))
    trainer(tmp_path, max_epochs=2).fit(Net(), datamodule=Data(1), ckpt_path=net.last_model_path)


def test_placeholder_that_is_passed_through_is_saved_and_resumed_again(tmp_path):
    class Passing(Net):
        def on_save_checkpoint(self, checkpoint):
            super().on_save_checkpoint(checkpoint)
            checkpoint["datamodule_hyper_parameters"] = self.__dict__.get("passed", {"odd": ODD["deque"]})

        def on_load_checkpoint(self, checkpoint):
            super().on_load_checkpoint(checkpoint)
            self.__dict__["passed"] = checkpoint["datamodule_hyper_parameters"]

    path, passed = None, []
    for epochs in (1, 2, 3):
        net = Passing(dirpath=tmp_path)
        trainer(tmp_path, max_epochs=epochs).fit(net, loader(2), ckpt_path=path)
        path = net.last_model_path
        passed.append(net.__dict__.get("passed"))
    assert isinstance(passed[1]["odd"], Placeholder)
    assert passed[1] == passed[2]


class Best(L.Callback):
    """Has an odd value in its state."""

    def state_dict(self) -> dict[str, Any]:
        return {"best": np.float64(0.5)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = state["best"]


class OddOptimizer(Net):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=np.float64(0.1))


@pytest.mark.filterwarnings("ignore::checkpointable.CheckpointableWarning")
def test_odd_value_in_the_state_of_a_callback_is_named_and_loaded_on_demand(tmp_path):
    net, best = Net(dirpath=tmp_path), Best()
    trainer(tmp_path, callbacks=[Best()]).fit(net, loader(2))
    says = (
        r"cannot restore the state in .*ckpt: .*\n  checkpoint\['callbacks'\]\['Best'\]\['best'\] is made by"
        r" numpy.*scalar\nIf you trust the file, pass weights_only=False .* Or save plain values"
    )
    with pytest.raises(NotLoadedError, match=says):
        trainer(tmp_path, max_epochs=2, callbacks=[best]).fit(Net(), loader(2), ckpt_path=net.last_model_path)
    again = trainer(tmp_path, max_epochs=2, callbacks=[best])
    again.fit(Net(), loader(2), ckpt_path=net.last_model_path, weights_only=False)
    assert best.best == 0.5
    with pytest.warns(UserWarning, match="Please add the following callbacks"):  # by Lightning: nobody reads the state
        trainer(tmp_path, max_epochs=2).fit(Net(), loader(2), ckpt_path=net.last_model_path)


@pytest.mark.filterwarnings("ignore::checkpointable.CheckpointableWarning")
def test_odd_value_in_the_state_of_an_optimizer_is_named_when_resuming_and_not_in_evaluation(tmp_path):
    net = OddOptimizer(dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(2))
    says = r"checkpoint\['optimizer_states'\]\[0\]\['param_groups'\]\[0\]\['lr'\] is made by numpy.*scalar"
    with pytest.raises(NotLoadedError, match=says):
        trainer(tmp_path, max_epochs=2).fit(OddOptimizer(), loader(2), ckpt_path=net.last_model_path)
    trainer(tmp_path).validate(OddOptimizer(), loader(2), ckpt_path=net.last_model_path)


class Scores(L.Callback):
    """Keeps many odd values of two types."""

    def state_dict(self) -> dict[str, Any]:
        return {"scores": [np.float64(0.5)] * 15, "color": Color.RED}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scores = state["scores"]


def test_odd_values_that_a_resume_needs_are_warned_about_once_for_each_type(tmp_path):
    net = Odd(ODD["numpy scalar"], dirpath=tmp_path, save_interval=1)
    with pytest.warns(CheckpointableWarning) as told:
        trainer(tmp_path, callbacks=[Scores()]).fit(net, loader(3))
    said = [str(it.message) for it in told if it.category is CheckpointableWarning]
    assert len(said) == 2
    assert said[0].startswith(
        "checkpoint['callbacks']['Scores']['scores'][0] is a numpy.float64 (so are 14 other values)."
    )
    assert said[0].endswith("Save a plain value there, or resume with Trainer.fit(weights_only=False).")
    assert said[1].startswith("checkpoint['callbacks']['Scores']['color'] is a odd_values.Color. Trainer.fit(")


class Logging(Net):
    """Logs its loss as a tensor of another class, and a score."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("marked", loss.as_subclass(Marked), on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.log("score", torch.tensor(0.5).as_subclass(Marked))


def logged(tmp_path, name: str, **options: Any) -> tuple[Logging, dict[str, Any]]:
    net = Logging(dirpath=tmp_path / name, save_interval=3, save_last_k=-1, monitor="score", patience=9)
    fit = trainer(tmp_path, max_epochs=2, callbacks=[ModelCheckpoint(tmp_path / "own", monitor="score")])
    fit.fit(net, loader(5), loader(2), **options)
    return net, fit.callback_metrics


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # that of ModelCheckpoint
def test_logged_tensors_of_another_class_are_plain_in_the_file_and_the_run_is_the_same(tmp_path):
    torch.manual_seed(0)
    whole, metrics = logged(tmp_path, "whole")
    for path in [*(tmp_path / "whole").glob("*.ckpt"), *(tmp_path / "own").glob("*.ckpt")]:
        torch.load(path, weights_only=True)
    resumed, again = logged(tmp_path, "resumed", ckpt_path=tmp_path / "whole" / "epoch_0_batch_3.ckpt")
    assert {name: float(it) for name, it in again.items()} == {name: float(it) for name, it in metrics.items()}
    assert resumed.layer.weight.equal(whole.layer.weight)


def test_logged_tensors_of_another_class_that_stay_so_are_refused_by_torch(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr("checkpointable.lightning_internals.logged.plain", lambda value, **_: value)
    with pytest.warns(CheckpointableWarning, match=r"\['ranks'\].* is a odd_values.Marked \(so are"):
        net, _ = logged(tmp_path, "whole")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(net.last_model_path, weights_only=True)


class Keeping(Net):
    """Saves a module of its own beside its weights, and sets it when it is restored."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.helper = torch.nn.Linear(2, 2)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["helper"] = self.helper

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.helper = checkpoint["helper"]


@pytest.mark.filterwarnings("ignore::checkpointable.CheckpointableWarning")  # of the save, tested above
def test_object_that_a_hook_of_the_module_sets_is_named_and_loaded_on_demand(tmp_path):
    net = Keeping(dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(2))
    for start in ("fit", "validate"):
        with pytest.raises(NotLoadedError, match=r"in the place of a .*layer.*last\.ckpt(.|\n)*weights_only=False"):
            getattr(trainer(tmp_path, max_epochs=2), start)(Keeping(), loader(2), ckpt_path=tmp_path / "last.ckpt")
    trainer(tmp_path, max_epochs=2).fit(Keeping(), loader(2), ckpt_path=tmp_path / "last.ckpt", weights_only=False)
