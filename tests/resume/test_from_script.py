"""What ``from_script`` names comes from the script, everything else from the file, and nothing else is inexact."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from nets import Net, load, loader, trainer
from torch.optim import lr_scheduler as schedulers

from checkpointable import PolicyError, ResumeError
from checkpointable.policy.from_script import Part
from checkpointable.resume import parameter_groups

MIDDLE = {"save_interval": 2, "save_last_k": -1, "save_top_k": 0, "save_last": False}
TOTAL = 15

SCHEDULES = {
    "none": None,
    "lambda": lambda it: schedulers.LambdaLR(it, lambda step: min(1.0, step / 6)),
    "cosine": lambda it: schedulers.CosineAnnealingLR(it, TOTAL + 1),
    "step": lambda it: schedulers.StepLR(it, 3, 0.5),
    "sequential": lambda it: schedulers.SequentialLR(
        it, [schedulers.LinearLR(it, 0.1, 1.0, 3), schedulers.CosineAnnealingLR(it, TOTAL)], [3]
    ),
    "one_cycle": lambda it: schedulers.OneCycleLR(it, [g["lr"] for g in it.param_groups], total_steps=TOTAL + 1),
}


class Scheduled(Net):
    """Two parameter groups, the rates of which a schedule moves with every batch; it notes them."""

    def __init__(self, lr=0.1, decay=0.0, schedule="none", interval="step", **options):
        super().__init__(**{**MIDDLE, **options})
        self.lr, self.decay, self.schedule, self.interval = lr, decay, SCHEDULES[schedule], interval
        self.rates, self.inputs = [], []

    def compute_loss(self, batch, batch_idx):
        self.inputs.append(batch[0].sum().item())
        [optimizer] = self.trainer.optimizers
        self.rates.append([group["lr"] for group in optimizer.param_groups])
        return super().compute_loss(batch, batch_idx)

    def configure_optimizers(self):
        groups = [{"params": [self.layer.weight]}, {"params": [self.layer.bias], "lr": self.lr / 2}]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.decay)
        if self.schedule is None:
            return optimizer
        return [optimizer], [{"scheduler": self.schedule(optimizer), "interval": self.interval}]


def saved(tmp_path, at="epoch_1_batch_2", **options):
    """The path of a checkpoint inside the second epoch."""
    trainer(tmp_path, max_epochs=2).fit(Scheduled(dirpath=tmp_path / "a", **options), loader(5))
    return tmp_path / f"a/{at}.ckpt"


def resume(path, parts, caplog, *, data=None, epochs=3, **options):
    """The module after a strict resume, and what the line says of it."""
    net = Scheduled(dirpath=path.parent.parent / "b", strict_resume=True, from_script=parts, **options)
    with caplog.at_level("INFO"):
        trainer(path.parent, max_epochs=epochs).fit(net, data or loader(5), ckpt_path=path)
    [line] = [record.message for record in caplog.records if "resumes after" in record.message]
    return net, line.partition(f"from {path}: ")[2]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learning_rate_from_script_gives_the_rates_of_a_run_that_had_it_from_the_start(tmp_path, caplog, schedule):
    path = saved(tmp_path, schedule=schedule)
    net, line = resume(path, "learning_rate", caplog, lr=0.03, schedule=schedule)
    first = "0.0012 (script), was 4e-3" if schedule == "one_cycle" else "0.03 (script), was 0.1"
    assert line.startswith(f"exact but for: learning rate of parameter group 0 {first}; ")
    whole = Scheduled(lr=0.03, schedule=schedule, save_interval=None)
    trainer(tmp_path, max_epochs=3).fit(whole, loader(5))
    torch.testing.assert_close(torch.tensor(net.rates), torch.tensor(whole.rates[7:]))


def test_learning_rate_from_script_without_its_initial_rates_is_undone_by_the_next_step(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(parameter_groups, "_rebased", lambda scheduler, state, factors: state)
    path = saved(tmp_path, schedule="lambda")
    net, _ = resume(path, "learning_rate", caplog, lr=0.03, schedule="lambda")
    assert net.rates[0][0] == pytest.approx(0.03)
    assert net.rates[1][0] == pytest.approx(0.1)


def test_numbers_from_script_are_named_and_kept_by_the_next_resume(tmp_path, caplog):
    path = saved(tmp_path)
    net, line = resume(path, ["learning_rate"], caplog, lr=3e-4, decay=0.2)
    assert line == (
        "exact but for: learning rate of parameter group 0 3e-4 (script), was 0.1;"
        " weight decay of parameter group 0 0.2 (script), was 0.0;"
        " learning rate of parameter group 1 1.5e-4 (script), was 0.05;"
        " weight decay of parameter group 1 0.2 (script), was 0.0"
    )
    assert [group["weight_decay"] for group in net.trainer.optimizers[0].param_groups] == [0.2, 0.2]
    caplog.clear()
    again = tmp_path / "b/epoch_2_batch_2.ckpt"
    assert resume(again, (), caplog, lr=3e-4, decay=0.2)[1] == "exact"


def test_same_learning_rate_from_script_is_exact(tmp_path, caplog):
    path = saved(tmp_path, schedule="cosine")
    assert resume(path, "learning_rate", caplog, schedule="cosine")[1] == "exact"


def test_optimizers_from_script_may_be_others_and_start_without_state(tmp_path, caplog):
    path = saved(tmp_path, schedule="step")

    class Other(Scheduled):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)
            return [optimizer], [{"scheduler": self.schedule(optimizer), "interval": "step"}]

        def on_train_start(self):
            super().on_train_start()
            self.at_start = len(self.trainer.optimizers[0].state)

    net = Other(dirpath=tmp_path / "b", strict_resume=True, from_script="optimizers", lr=0.03, schedule="step")
    with caplog.at_level("INFO"):
        trainer(tmp_path, max_epochs=2).fit(net, loader(5), ckpt_path=path)
    assert "exact but for: " in caplog.text
    assert "optimizers (script)" in caplog.text
    assert net.at_start == 0
    assert net.rates[0] == pytest.approx([0.03 * 0.25])  # the schedule goes on


def test_schedulers_from_script_start_anew_from_the_initial_rate_of_the_file(tmp_path, caplog):
    path = saved(tmp_path, schedule="cosine")
    net, line = resume(path, "lr_schedulers", caplog, schedule="step")
    assert line == "exact but for: lr_schedulers (script), from their start"
    assert [rate for rate, _ in net.rates[:4]] == pytest.approx([0.1, 0.1, 0.1, 0.05])
    caplog.clear()
    with pytest.raises(ResumeError, match=r"learning rate.*from the file, the script says 0\.3"):
        resume(path, "lr_schedulers", caplog, schedule="step", lr=0.3)


def test_schedulers_and_learning_rate_from_script_are_as_the_script_made_them(tmp_path, caplog):
    path = saved(tmp_path, schedule="cosine")
    net, _ = resume(path, ["lr_schedulers", "learning_rate"], caplog, schedule="step", lr=0.3)
    assert [rate for rate, _ in net.rates[:4]] == pytest.approx([0.3, 0.3, 0.3, 0.15])


def test_data_from_script_begin_with_the_next_epoch(tmp_path, caplog):
    path = saved(tmp_path, schedule="step", interval="epoch")
    other = loader(3, seed=7)
    net, line = resume(path, "data", caplog, data=other, schedule="step", interval="epoch", epochs=4)
    assert line == "exact but for: data (script), from the next epoch on"
    assert net.inputs == [batch[0].sum().item() for batch in other] * 2
    assert [rate for rate, _ in net.rates] == pytest.approx([0.1] * 3 + [0.05] * 3)  # epochs 2 and 3
    assert (tmp_path / "b/epoch_2_batch_2.ckpt").exists()


def test_data_from_script_after_a_whole_epoch_skip_none(tmp_path, caplog):
    path = saved(tmp_path, "epoch_0_batch_5", every_n_epochs=1, save_interval=None)
    net, _ = resume(path, "data", caplog, data=loader(3, seed=7), epochs=2)
    assert len(net.inputs) == 3


def test_randomness_from_script_is_that_of_its_seed(tmp_path, caplog):
    class Drawing(Scheduled):
        def on_train_batch_start(self, batch, batch_idx):
            self.drawn = [*getattr(self, "drawn", ()), (random.random(), torch.rand(()).item())]

    random.seed(4)
    path = saved(tmp_path)
    drawn = []
    for part in ("randomness", ()):
        random.seed(5)
        torch.manual_seed(5)
        net = Drawing(dirpath=tmp_path / f"b{part}", from_script=part, strict_resume=True)
        before = random.getstate()
        with caplog.at_level("INFO"):
            trainer(tmp_path, max_epochs=2).fit(net, loader(5), ckpt_path=path)
        expected = random.Random()
        expected.setstate(before)
        drawn.append(net.drawn[0][0] == expected.random())
    assert drawn == [True, False]
    assert "exact but for: randomness (script)" in caplog.text


def test_callbacks_from_script_forget_what_the_file_says(tmp_path, caplog):
    def stopping():
        return EarlyStopping("train_loss_epoch", patience=1, min_delta=100.0, check_on_train_epoch_end=True)

    first = trainer(tmp_path, max_epochs=5, callbacks=[stopping()])
    first.fit(Scheduled(dirpath=tmp_path / "a", every_n_epochs=1), loader(5))
    path = tmp_path / "a/epoch_1_batch_5.ckpt"
    assert path.exists()
    net = Scheduled(dirpath=tmp_path / "b", strict_resume=True, from_script="callbacks")
    with caplog.at_level("INFO"):
        trainer(tmp_path, max_epochs=4, callbacks=[stopping()]).fit(net, loader(5), ckpt_path=path)
    assert len(net.inputs) == 10  # two more epochs, not none
    assert "exact but for: callbacks (script)" in caplog.text


@pytest.mark.parametrize("parts", [*combinations(Part, 2), tuple(Part)], ids="+".join)
def test_parts_from_script_combine(tmp_path, caplog, parts):
    path = saved(tmp_path, schedule="cosine")
    net, line = resume(path, parts, caplog, schedule="cosine")
    named = [name for name in ("lr_schedulers", "optimizers", "data", "randomness", "callbacks") if name in parts]
    assert [entry.split(" (script)")[0] for entry in line.removeprefix("exact but for: ").split("; ")] == named
    assert len(net.inputs) == 8 - 3 * ("data" in parts)
    assert load(tmp_path / "b/epoch_2_batch_4.ckpt")["global_step"] == 14 - 3 * ("data" in parts)


@pytest.mark.parametrize("parts", ["lr", ["data", "weights"], 3, None, b"data", [1]])
def test_unknown_part_is_refused_with_the_words_that_are_known(parts):
    with pytest.raises(PolicyError, match=r"from_script=.* must be one of 'learning_rate', 'lr_schedulers', 'optimiz"):
        Net(from_script=parts)
