"""The metrics of a file are those that were measured at its position, and no earlier ones."""

from __future__ import annotations

import pytest
from nets import MixedNet, Net, loader, trainer

from checkpointable import Checkpoints
from checkpointable.catalog.info import read_info
from checkpointable.lightning_internals import logged
from checkpointable.saving.measured import Measured
from checkpointable.saving.monitor import scalars


def fit(root, net, **options):
    own = trainer(root, **{"max_epochs": 3, **options})
    own.fit(net, loader(6), loader(2))
    return own


def metrics_of(directory):
    return {info.batches: info.metrics for info in Checkpoints(directory)}


def validated_at(directory):
    return [batches for batches, metrics in metrics_of(directory).items() if "val_loss" in metrics]


def test_validation_is_in_the_files_that_were_saved_right_after_it_alone(tmp_path):
    fit(tmp_path, Net(save_interval=2, save_last_k=-1, save_top_k=-1, dirpath=tmp_path))
    assert list(metrics_of(tmp_path)) == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert validated_at(tmp_path) == [6, 12, 18]


def test_metric_that_is_carried_over_would_stand_in_other_files_too(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr(Measured, "metrics", lambda self, trainer, position: scalars(trainer.callback_metrics))
    fit(tmp_path, Net(save_interval=2, save_last_k=-1, save_top_k=-1, dirpath=tmp_path))
    assert validated_at(tmp_path) == [6, 8, 10, 12, 14, 16, 18]


def test_validation_inside_the_epoch_is_in_the_file_of_its_batch_alone(tmp_path):
    fit(tmp_path, Net(save_interval=1, save_last_k=-1, dirpath=tmp_path), val_check_interval=4, max_epochs=2)
    assert validated_at(tmp_path) == [4, 10]


def test_plot_draws_each_validation_once(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    fit(tmp_path, Net(save_interval=2, save_last_k=-1, save_top_k=-1, dirpath=tmp_path))
    drawn = Checkpoints(tmp_path).plot().lines[0].get_xydata()
    assert [int(x) for x, _ in drawn] == [6, 12, 18]


def test_training_loss_is_that_of_the_last_batch_and_the_epochs_mean_where_it_ends(tmp_path):
    losses = []

    class Noting(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"]))

    fit(tmp_path, Noting(save_interval=2, save_last_k=-1, save_top_k=0, dirpath=tmp_path), max_epochs=2)
    for batches, metrics in metrics_of(tmp_path).items():
        assert metrics["train_loss_step"] == losses[batches - 1]
        assert ("train_loss_epoch" in metrics) == (batches % 6 == 0)
        mean = sum(losses[batches - 6 : batches]) / 6
        assert metrics["train_loss"] == (losses[batches - 1] if batches % 6 else pytest.approx(mean, rel=1e-6))


class Sometimes(MixedNet):
    """Logs a value of its own at every fourth batch of the run, and one over the epoch."""

    def training_step(self, batch, batch_idx):
        if self.global_step % 4 == 3:
            self.log("rare", float(self.global_step))
        self.log("over_epoch", float(self.global_step), on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)


def test_value_that_not_every_batch_logs_is_in_the_files_of_those_that_do(tmp_path):
    fit(tmp_path, Sometimes(save_interval=1, save_last_k=-1, save_top_k=0, dirpath=tmp_path), max_epochs=2)
    found = metrics_of(tmp_path)
    assert {at: it["rare"] for at, it in found.items() if "rare" in it} == {4: 3.0, 8: 7.0, 12: 11.0}
    assert [at for at, it in found.items() if "over_epoch" in it] == [6, 12]
    assert all("train_loss" in it for it in found.values())


def test_epochs_of_one_batch_measure_in_each_of_them(tmp_path):
    net = MixedNet(save_interval=1, save_last_k=-1, save_top_k=0, dirpath=tmp_path)
    trainer(tmp_path, max_epochs=3).fit(net, loader(1), loader(1))
    assert all(it.keys() == {"train_loss", "val_loss"} for it in metrics_of(tmp_path).values())


def test_name_of_a_file_has_the_latest_value_as_in_lightning(tmp_path):
    template = "{step}-{val_loss:.6f}"
    net = Net(save_interval=2, save_last_k=-1, save_top_k=0, dirpath=tmp_path, filename=template)
    fit(tmp_path, net, max_epochs=2)
    by_batch = {info.batches: info for info in Checkpoints(tmp_path)}
    first = by_batch[6].metrics["val_loss"]
    assert "nan" in by_batch[2].path
    assert f"{first:.6f}" in by_batch[8].path
    assert "val_loss" not in by_batch[8].metrics


def test_run_that_resumes_has_the_values_of_its_position_until_it_moves(tmp_path):
    fit(tmp_path, Net(save_interval=2, dirpath=tmp_path / "a"))

    class Saving(Net):
        def on_train_start(self):
            self.trainer.save_checkpoint(tmp_path / "at_once.ckpt")

    net = Saving(save_interval=2, save_last_k=-1, dirpath=tmp_path / "b")
    path = tmp_path / "a" / "best_val_loss_epoch_2.ckpt"
    own = trainer(tmp_path, max_epochs=4)
    own.fit(net, loader(6), loader(2), ckpt_path=path)
    assert read_info(tmp_path / "at_once.ckpt").metrics == read_info(path).metrics
    assert validated_at(tmp_path / "b") == [24]


def test_state_kept_while_the_next_batch_is_fetched_has_the_values_of_its_batch(tmp_path):
    class Failing:
        def __len__(self):
            return 5

        def __iter__(self):
            yield from loader(3)
            raise RuntimeError("no more data")

    net = Net(save_interval=None, dirpath=tmp_path)
    with pytest.raises(RuntimeError, match="no more data"):
        trainer(tmp_path).fit(net, Failing())
    (info,) = Checkpoints(tmp_path)
    assert (info.kind, info.batches) == ("exception", 3)
    assert info.metrics.keys() == {"train_loss", "train_loss_step"}


def test_save_by_hand_after_the_fit_has_the_values_of_the_end(tmp_path):
    own = fit(tmp_path, Net(save_interval=None, dirpath=tmp_path))
    own.save_checkpoint(tmp_path / "by_hand.ckpt")
    assert read_info(tmp_path / "by_hand.ckpt").metrics.keys() == set(own.callback_metrics)


def test_validation_that_a_hook_of_the_user_runs_is_none_of_the_run(tmp_path):
    class Validating(MixedNet):
        def on_train_epoch_end(self):
            self.trainer.validating = True
            self.trainer.fit_loop.epoch_loop.val_loop.run()
            self.trainer.training = True

    net = Validating(save_interval=1, save_last_k=-1, save_top_k=0, dirpath=tmp_path)
    fit(tmp_path, net, max_epochs=2, check_val_every_n_epoch=3)
    assert validated_at(tmp_path) == []


def test_updates_are_counted_for_each_value_that_the_training_logs(tmp_path):
    seen = []

    class Looking(Sometimes):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            seen.append(logged.updates(self.trainer).get("training_step.rare", 0))

    fit(tmp_path, Looking(dirpath=tmp_path), max_epochs=1)
    assert seen == [0, 0, 0, 1, 1, 1]
