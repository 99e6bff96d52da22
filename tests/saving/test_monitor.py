"""What is best: from which values it is judged, and what is said where there is nothing to judge."""

from __future__ import annotations

import math

import pytest
import torch
from nets import MixedNet, Net, Scripted, files, links, loader, trainer

from checkpointable import MonitorError, PolicyError
from checkpointable.catalog.info import read_info

NAN = math.nan


def fit_scores(tmp_path, scores, **options):
    net = Scripted(scores, dirpath=tmp_path, **options)
    trainer(tmp_path, max_epochs=len(scores)).fit(net, loader(2), loader(1))
    return net


@pytest.mark.parametrize(
    ("scores", "options", "kept"),
    [
        ([3.0, 1.0, 2.0], {}, [1]),
        ([1.0, 3.0, 2.0], {"mode": "max"}, [1]),
        ([1.0, 1.0, 1.0], {}, [0]),
        ([NAN, 2.0, NAN, 3.0], {}, [1]),
        ([1.0, 0.0, 0.5], {}, [1]),
        ([-1.0, 0.0, -0.5], {"mode": "max"}, [1]),
        ([3.0, 2.95, 2.8], {"min_delta": 0.1}, [2]),
        ([3.0, 1.0, 2.0, 4.0], {"save_top_k": 2}, [1, 2]),
        ([3.0, NAN, 2.0], {"save_top_k": -1}, [0, 2]),
        ([3.0, 1.0], {"save_top_k": 0}, []),
    ],
)
def test_best_are_kept_by_the_rules(tmp_path, scores, options, kept):
    net = fit_scores(tmp_path, scores, save_last=False, **options)
    assert files(tmp_path) == [f"best_score_epoch_{epoch}.ckpt" for epoch in kept]
    assert sorted(net.best_k_models) == [str(tmp_path / name) for name in files(tmp_path)]


def test_best_val_loss_is_the_lowest_seen_whatever_the_monitor(tmp_path):
    losses = []

    class Noting(Scripted):
        def on_train_epoch_end(self):
            losses.append(float(self.trainer.callback_metrics["val_loss"]))

    net = Noting([1.0, 2.0, 3.0], dirpath=tmp_path, learning_rate=0.3)
    trainer(tmp_path, max_epochs=3).fit(net, loader(8), loader(3))
    assert net.best_val_loss == min(losses)


def test_mixin_takes_best_val_loss_from_what_the_module_logs(tmp_path):
    net = MixedNet(dirpath=tmp_path)
    own = trainer(tmp_path)
    own.fit(net, loader(4), loader(2))
    assert net.best_val_loss == float(own.callback_metrics["val_loss"])
    assert float(net.best_model_score) == net.best_val_loss


def test_monitor_of_training_is_judged_at_the_end_of_the_epoch(tmp_path):
    net = Net(monitor="train_loss", dirpath=tmp_path)
    own = trainer(tmp_path)
    own.fit(net, loader(4))
    assert files(tmp_path) == ["best_train_loss_epoch_0.ckpt"]
    assert float(net.best_model_score) == float(own.callback_metrics["train_loss_epoch"])


def test_monitor_that_is_logged_by_step_only_is_judged_by_its_last_value(tmp_path):
    class Stepping(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.log("count", float(self.global_step), on_step=True, on_epoch=False)

    net = Stepping(monitor="count", mode="max", save_top_k=2, dirpath=tmp_path, save_last=False)
    trainer(tmp_path, max_epochs=3).fit(net, loader(4))
    assert [float(score) for score in net.best_k_models.values()] == [12.0, 8.0]


def test_stale_value_of_an_earlier_validation_makes_nothing_best(tmp_path):
    net = Net(dirpath=tmp_path, save_top_k=-1, save_last=False)
    trainer(tmp_path, max_epochs=4, check_val_every_n_epoch=2).fit(net, loader(4), loader(2))
    assert files(tmp_path) == ["best_val_loss_epoch_1.ckpt", "best_val_loss_epoch_3.ckpt"]


@pytest.mark.parametrize("where", [True, False, None])
def test_save_on_train_epoch_end_judges_the_same_validation(tmp_path, where):
    net = Net(dirpath=tmp_path, save_on_train_epoch_end=where)
    trainer(tmp_path).fit(net, loader(4), loader(2))
    assert links(tmp_path)["best.ckpt"] == "best_val_loss_epoch_0.ckpt"


def test_save_on_train_epoch_end_true_passes_validations_inside_the_epoch_over(tmp_path):
    net = Net(dirpath=tmp_path, save_on_train_epoch_end=True, save_top_k=-1, save_last=False)
    trainer(tmp_path, val_check_interval=2).fit(net, loader(6), loader(2))
    assert len(files(tmp_path)) == 1
    assert read_info(net.best_model_path).batch == 6


def test_save_on_train_epoch_end_false_judges_a_training_value_after_validation(tmp_path):
    net = Net(dirpath=tmp_path, monitor="train_loss_step", save_on_train_epoch_end=False, save_last=False)
    trainer(tmp_path, val_check_interval=2).fit(net, loader(5), loader(1))
    assert read_info(net.best_model_path).batch in (2, 4)


@pytest.mark.parametrize("where", [True, False, None])
def test_monitor_that_is_never_logged_is_an_error_that_names_what_is(tmp_path, where):
    net = Net(monitor="val_acc", dirpath=tmp_path, save_on_train_epoch_end=where)
    with pytest.raises(MonitorError, match=r"val_acc.*never logged.*val_loss.*Log it with self\.log\('val_acc'"):
        trainer(tmp_path, max_epochs=5).fit(net, loader(4), loader(2))
    assert net.last_model_path == str(tmp_path / "epoch_0_batch_4.ckpt"), "the state was whole, and is kept"


def test_monitor_of_a_validation_that_is_still_to_come_is_no_error(tmp_path):
    net = Scripted([1.0], dirpath=tmp_path)
    trainer(tmp_path, max_epochs=3, check_val_every_n_epoch=3).fit(net, loader(2), loader(1))
    assert files(tmp_path) == ["best_score_epoch_2.ckpt"]


def test_default_monitor_that_is_not_logged_is_said_once_and_no_error(tmp_path, caplog):
    class Other(MixedNet):
        def validation_step(self, batch, batch_idx):
            self.log("accuracy", 0.5)

    with caplog.at_level("INFO"):
        trainer(tmp_path, max_epochs=3).fit(Other(dirpath=tmp_path), loader(2), loader(1))
    assert sum("is not logged" in record.message for record in caplog.records) == 1


def test_monitor_that_is_not_a_scalar_is_an_error(tmp_path):
    import torchmetrics

    class Vector(Net):
        def __init__(self, **options):
            super().__init__(monitor="both", **options)
            self.both = torchmetrics.Accuracy("multiclass", num_classes=2, average=None)

        def validation_step(self, batch, batch_idx):
            self.both(self.layer(batch[0]), batch[1])
            self.log("both", self.both)

    with pytest.raises(MonitorError, match=r"'both' is not a scalar.*shape \(2,\).*Log its mean"):
        trainer(tmp_path, num_sanity_val_steps=0, enable_progress_bar=False).fit(
            Vector(dirpath=tmp_path), loader(2), loader(1)
        )


def test_template_field_that_is_never_logged_is_refused_with_those_that_are(tmp_path):
    net = Net(filename="{nope:.2f}", save_interval=2, dirpath=tmp_path)
    with pytest.raises(PolicyError, match=r"nothing called 'nope'; there are epoch, batch, step, .*val_loss"):
        trainer(tmp_path).fit(net, loader(4), loader(1))


def test_template_field_that_is_logged_later_is_nan_until_then(tmp_path):
    net = Net(filename="{batch}_{val_loss:.2f}", save_interval=2, save_last_k=-1, dirpath=tmp_path, save_last=False)
    trainer(tmp_path, max_epochs=2).fit(net, loader(3), loader(1))
    names = files(tmp_path)
    assert "2_nan.ckpt" in names
    assert sum(name.startswith(("2_0.", "2_1.")) for name in names) == 1


def test_patience_stops_through_lightnings_early_stopping(tmp_path):
    net = Scripted([1.0, 2.0, NAN, 3.0, 4.0, 5.0], dirpath=tmp_path, patience=3)
    own = trainer(tmp_path, max_epochs=6)
    own.fit(net, loader(2), loader(1))
    assert own.current_epoch == 4, "three validations without improvement, NaN among them"
    assert [type(callback).__name__ for callback in own.early_stopping_callbacks] == ["EarlyStopping"]
    own.fit(net, loader(2), loader(1))
    assert len(own.early_stopping_callbacks) == 1


def test_ranks_of_weights_follow_the_file_not_the_moment(tmp_path):
    """The file called best holds the weights that had the best score."""
    net = Net(dirpath=tmp_path, learning_rate=0.5)
    own = trainer(tmp_path, max_epochs=4)
    own.fit(net, loader(6, seed=1), loader(3))
    best = torch.load(net.best_model_path, weights_only=True)["state_dict"]
    net.load_state_dict(best)
    validated = own.validate(net, loader(3), verbose=False)[0]["val_loss"]
    assert validated == pytest.approx(float(net.best_model_score), rel=1e-6)


def test_val_loss_logged_after_super_moves_best_val_loss(tmp_path):
    class Late(MixedNet):
        def validation_step(self, batch, batch_idx):
            pass

        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            self.log("val_loss", 0.25)

    net = Late(dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(2), loader(1))
    assert net.best_val_loss == 0.25


@pytest.mark.filterwarnings("ignore:You're resuming")
def test_monitor_and_field_that_are_logged_now_and_then_are_known_after_a_resume(tmp_path):
    class Sporadic(Net):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            if self.current_epoch % 3 == 0:
                self.log("fid", 1.0 / (1 + self.current_epoch))

    options = {"monitor": "fid", "filename": "e{epoch}_{fid:.2f}", "dirpath": tmp_path, "every_n_epochs": 1}
    trainer(tmp_path, max_epochs=2).fit(Sporadic(**options), loader(2), loader(1))
    again = Sporadic(**options)
    trainer(tmp_path, max_epochs=4).fit(again, loader(2), loader(1), ckpt_path=tmp_path / "last.ckpt")
    assert read_info(again.best_model_path).epoch == 3


def test_patience_without_a_value_to_watch_is_an_error(tmp_path):
    class Other(MixedNet):
        def validation_step(self, batch, batch_idx):
            self.log("accuracy", 0.5)

    with pytest.raises(MonitorError, match=r"'val_loss' was never logged"):
        trainer(tmp_path, max_epochs=3).fit(Other(dirpath=tmp_path, patience=1), loader(2), loader(1))
