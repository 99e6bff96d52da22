"""When a checkpoint is saved, in real fits."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
from nets import MixedNet, Net, files, links, load, loader, trainer

from checkpointable.catalog.info import read_info

ALL = {"save_last_k": -1, "save_last": False, "save_top_k": 0}


def test_interval_counts_batches_within_the_epoch(tmp_path):
    net = Net(save_interval=4, dirpath=tmp_path, **ALL)
    trainer(tmp_path, max_epochs=2).fit(net, loader(10))
    assert files(tmp_path) == [f"epoch_{e}_batch_{b}.ckpt" for e in (0, 1) for b in (4, 8)]


def test_interval_at_the_last_batch_is_saved_when_the_epoch_is_over(tmp_path):
    net = Net(save_interval=5, dirpath=tmp_path, **ALL)
    trainer(tmp_path).fit(net, loader(10))
    assert files(tmp_path) == ["epoch_0_batch_10.ckpt", "epoch_0_batch_5.ckpt"]
    saved = load(tmp_path / "epoch_0_batch_10.ckpt")
    assert saved["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"] == 1


def test_interval_none_never_saves(tmp_path):
    trainer(tmp_path).fit(Net(dirpath=tmp_path, **ALL), loader(10))
    assert files(tmp_path) == []


def test_steps_count_optimizer_steps_not_batches(tmp_path):
    net = Net(every_n_train_steps=2, dirpath=tmp_path, filename="step_{step}_batch_{batch}", **ALL)
    trainer(tmp_path, accumulate_grad_batches=2).fit(net, loader(10))
    assert files(tmp_path) == ["step_2_batch_4.ckpt", "step_4_batch_8.ckpt"]


def test_epochs_are_saved_at_their_end(tmp_path):
    net = Net(every_n_epochs=2, dirpath=tmp_path, **ALL)
    trainer(tmp_path, max_epochs=5).fit(net, loader(3))
    assert files(tmp_path) == ["epoch_1_batch_3.ckpt", "epoch_3_batch_3.ckpt"]


def test_time_zero_saves_after_every_batch(tmp_path):
    net = Net(train_time_interval=timedelta(0), dirpath=tmp_path, **ALL)
    trainer(tmp_path).fit(net, loader(3))
    assert len(files(tmp_path)) == 3
    assert read_info(tmp_path / "epoch_0_batch_1.ckpt").kind == "time"


def test_time_that_has_not_passed_saves_nothing(tmp_path):
    trainer(tmp_path).fit(Net(train_time_interval=timedelta(hours=1), dirpath=tmp_path, **ALL), loader(3))
    assert files(tmp_path) == []


def test_conditions_due_at_one_moment_share_one_file(tmp_path):
    net = Net(save_interval=2, every_n_train_steps=2, train_time_interval=timedelta(0), dirpath=tmp_path, **ALL)
    trainer(tmp_path).fit(net, loader(5))
    assert read_info(tmp_path / "epoch_0_batch_2.ckpt").reasons == ("interval", "step", "time")
    assert len(files(tmp_path)) == 5


def test_file_that_is_newest_and_best_is_written_once(tmp_path):
    net = Net(save_interval=5, dirpath=tmp_path)
    trainer(tmp_path).fit(net, loader(5), loader(2))
    assert files(tmp_path) == ["best_val_loss_epoch_0.ckpt"]
    assert links(tmp_path) == {"last.ckpt": "best_val_loss_epoch_0.ckpt", "best.ckpt": "best_val_loss_epoch_0.ckpt"}
    assert set(read_info(tmp_path / "best.ckpt").reasons) == {"best", "interval"}


def test_end_of_training_is_saved_once(tmp_path):
    net = Net(dirpath=tmp_path, save_top_k=0)
    trainer(tmp_path, max_epochs=2).fit(net, loader(3))
    assert files(tmp_path) == ["epoch_1_batch_3.ckpt"]
    assert read_info(net.last_model_path).kind == "last"


def test_end_of_training_at_max_steps_inside_an_epoch_is_saved(tmp_path):
    net = Net(dirpath=tmp_path, save_top_k=0)
    trainer(tmp_path, max_steps=4).fit(net, loader(10))
    assert files(tmp_path) == ["epoch_0_batch_4.ckpt"]


def test_everything_off_attaches_nothing_and_files_of_others_carry_our_state(tmp_path):
    net = Net(save_top_k=0, save_last=False, save_on_exception=False)
    own = trainer(tmp_path, max_epochs=2)
    before = [type(callback).__name__ for callback in own.callbacks]
    own.fit(net, loader(3), loader(1))
    assert [type(callback).__name__ for callback in own.callbacks] == before
    state = load(own.checkpoint_callback.best_model_path)["checkpointable"]
    assert state["position"] == {"epoch": 1, "batch": 3, "step": 6, "batches": 6}


def test_save_interval_can_be_changed_while_training(tmp_path):
    class Impatient(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 3:
                self.save_interval = 3

    trainer(tmp_path).fit(Impatient(save_interval=100, dirpath=tmp_path, **ALL), loader(10))
    assert files(tmp_path) == ["epoch_0_batch_6.ckpt", "epoch_0_batch_9.ckpt"]


@pytest.mark.parametrize("raw", [False, True], ids=["lightning", "raw"])
def test_manual_optimisation_with_two_optimizers_counts_batches_once(tmp_path, raw):
    class Two(MixedNet):
        def __init__(self, **options):
            super().__init__(**options)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            for optimizer in self.optimizers(use_pl_optimizer=not raw):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
                self.manual_backward(loss)
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD([weight], lr=0.1) for weight in self.layer.parameters()]

    net = Two(save_interval=3, every_n_train_steps=4, filename="b{batch}_s{step}", dirpath=tmp_path, **ALL)
    own = trainer(tmp_path)
    own.fit(net, loader(8), loader(1))
    assert files(tmp_path) == ["b3_s3.ckpt", "b4_s4.ckpt", "b6_s6.ckpt", "b8_s8.ckpt"]
    assert own.global_step == (0 if raw else 16)


def test_fast_dev_run_saves_nothing(tmp_path):
    trainer(tmp_path, fast_dev_run=3).fit(Net(save_interval=1, dirpath=tmp_path / "here"), loader(3), loader(1))
    assert not (tmp_path / "here").exists()


def test_validate_test_and_predict_save_nothing(tmp_path):
    net = Net(save_interval=1, dirpath=tmp_path / "here")
    net.predict_step = lambda batch, batch_idx: net.layer(batch[0])
    own = trainer(tmp_path)
    own.validate(net, loader(2), verbose=False)
    own.test(net, loader(2), verbose=False)
    own.predict(net, loader(2))
    assert not (tmp_path / "here").exists()
    assert net.best_val_loss == float("inf")


def test_sanity_check_judges_nothing(tmp_path):
    seen = []

    class Watching(Net):
        def on_train_start(self):
            seen.append((self.best_val_loss, self.best_model_path))

    trainer(tmp_path, num_sanity_val_steps=2).fit(Watching(dirpath=tmp_path), loader(2), loader(4))
    assert seen == [(float("inf"), "")]


def test_enable_checkpointing_false_switches_saving_off_and_says_so(tmp_path, caplog):
    with caplog.at_level("INFO"):
        trainer(tmp_path, enable_checkpointing=False).fit(Net(save_interval=1, dirpath=tmp_path / "here"), loader(3))
    assert not (tmp_path / "here").exists()
    assert sum("enable_checkpointing=False" in record.message for record in caplog.records) == 1


def test_barebones_trainer_trains_and_saves_nothing(tmp_path):
    import lightning as L

    own = L.Trainer(barebones=True, default_root_dir=tmp_path, max_epochs=1, accelerator="cpu")
    own.fit(Net(save_interval=1, dirpath=tmp_path / "here"), loader(3), loader(2))
    assert not (tmp_path / "here").exists()
