"""A part resumes exactly only where it was put back and found the same."""

from __future__ import annotations

import json
import zipfile

import lightning as L
import pytest
import torch
import torchmetrics
from lightning.pytorch.callbacks import BackboneFinetuning, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from nets import Net, loader, trainer

from checkpointable import ResumeError
from checkpointable.catalog.info import read_info
from checkpointable.lightning_internals import logged
from checkpointable.policy.verdict import Level, Verdict, exactness
from checkpointable.resume import restorer, rng

MIDDLE = {"save_interval": 2, "save_top_k": 0, "save_last": False}
PATH = "a/epoch_0_batch_4.ckpt"


class Measured(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.accuracy = torchmetrics.Accuracy("binary")

    def compute_loss(self, batch, batch_idx):
        self.accuracy(self.layer(batch[0]).argmax(1), batch[1])
        return super().compute_loss(batch, batch_idx)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters())
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Counting(L.Callback):
    """Keeps a count that it saves."""

    def __init__(self):
        self.batches = 0

    def on_train_batch_end(self, *args):
        self.batches += 1

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state):
        self.batches = state["batches"]


class Forgetting(Counting):
    def load_state_dict(self, state):
        pass


def save(tmp_path, net=Measured, callbacks=()):
    trainer(tmp_path, callbacks=list(callbacks)).fit(net(dirpath=tmp_path / "a", **MIDDLE), loader(5))


def verdicts_of(tmp_path, net=Measured, callbacks=()):
    """How a resume from the file goes, by part."""
    again = net(dirpath=tmp_path / "b", **MIDDLE)
    found = {}

    class Reading(L.Callback):
        def on_train_start(self, trainer, module):
            found.update({it.part: it for it in module._checkpointing.restorer.verdicts})

    trainer(tmp_path, callbacks=[*callbacks, Reading()]).fit(again, loader(5), ckpt_path=tmp_path / PATH)
    return found


def refused(tmp_path, net=Measured, callbacks=()):
    strict = net(dirpath=tmp_path / "b", strict_resume=True, **MIDDLE)
    with pytest.raises(ResumeError) as caught:
        trainer(tmp_path, callbacks=list(callbacks)).fit(strict, loader(5), ckpt_path=tmp_path / PATH)
    return str(caught.value)


def test_every_part_that_comes_back_is_exact_with_its_evidence(tmp_path):
    save(tmp_path, callbacks=[Counting()])
    found = verdicts_of(tmp_path, callbacks=[Counting()])
    assert {it.level for it in found.values()} == {Level.EXACT}
    parts = {"weights", "optimizers", "lr_schedulers", "loops", "randomness", "metrics", "logged values", "settings"}
    assert parts | {"Counting", "train loader"} >= found.keys() >= parts | {"Counting"}
    assert found["optimizers"].why == "AdamW read back as in the file"


def test_metadata_of_a_file_has_the_verdict_of_each_part(tmp_path):
    save(tmp_path, callbacks=[Counting()])
    found = {it.part: it for it in read_info(tmp_path / PATH).verdicts}
    assert found.keys() >= {"weights", "optimizers", "lr_schedulers", "loops", "randomness", "metrics", "Counting"}
    with zipfile.ZipFile(tmp_path / PATH) as archive:
        [member] = [name for name in archive.namelist() if name.endswith("checkpointable.json")]
        assert {"part": "weights", "level": "exact", "why": "in the file"} in json.loads(archive.read(member))[
            "verdicts"
        ]


def test_callback_that_does_not_take_its_state_back_is_approximate_and_refused_when_strict(tmp_path):
    save(tmp_path, callbacks=[Forgetting()])
    why = "batches: not as in the file after loading"
    assert verdicts_of(tmp_path, callbacks=[Forgetting()])["Forgetting"] == Verdict(
        "Forgetting", Level.APPROXIMATE, why
    )
    assert f"Forgetting: approximate ({why})" in refused(tmp_path, callbacks=[Forgetting()])


def test_callback_that_is_new_is_approximate_and_one_that_is_gone_is_lost(tmp_path):
    save(tmp_path)
    found = verdicts_of(tmp_path, callbacks=[Counting()])["Counting"]
    assert (found.level, found.why) == (Level.APPROXIMATE, "the file has no state of it")
    save(tmp_path / "other", callbacks=[Counting()])
    with pytest.warns(UserWarning, match="Be aware that when using `ckpt_path`"):
        found = verdicts_of(tmp_path / "other")["Counting"]
    assert found.level == Level.LOST


class SaveCheckpoint(ModelCheckpoint):
    """As some projects bring along."""


def test_subclass_of_model_checkpoint_that_is_still_there_is_not_lost(tmp_path):
    save(tmp_path, callbacks=[SaveCheckpoint(save_top_k=0)])
    found = verdicts_of(tmp_path, callbacks=[SaveCheckpoint(save_top_k=0)])
    assert {it.level for it in found.values()} == {Level.EXACT}


class HalfSaved(Measured):
    """Leaves a part of the weights out of its files."""

    strict_loading = False

    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        del checkpoint["state_dict"]["layer.bias"]


def test_weights_that_are_not_in_the_file_are_approximate(tmp_path):
    save(tmp_path, HalfSaved)
    found = verdicts_of(tmp_path, HalfSaved)["weights"]
    assert (found.level, found.why) == (
        Level.APPROXIMATE,
        "layer.bias: not in the file with this shape, as the script made them",
    )


class Changing(Measured):
    """Changes its weights after they are loaded."""

    def on_fit_start(self):
        with torch.no_grad():
            self.layer.weight += 1


def test_weights_that_are_changed_after_loading_are_approximate(tmp_path):
    save(tmp_path)
    found = verdicts_of(tmp_path, Changing)["weights"]
    assert (found.level, found.why) == (Level.APPROXIMATE, "layer.weight: not as in the file after loading")


def test_averaged_weights_beside_the_weights_are_exact(tmp_path):
    save(tmp_path, Net, [EMAWeightAveraging(decay=0.5)])
    found = verdicts_of(tmp_path, Net, [EMAWeightAveraging(decay=0.5)])["weights"]
    assert (found.level, found.why) == (Level.EXACT, "read back as in the file")


class Finetuned(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.backbone = torch.nn.Linear(2, 2)

    def compute_loss(self, batch, batch_idx):
        return super().compute_loss([self.backbone(batch[0]), batch[1]], batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD([weight for weight in self.parameters() if weight.requires_grad], lr=0.1)


@pytest.mark.parametrize(
    "make", [lambda: EarlyStopping("train_loss_step"), lambda: BackboneFinetuning(unfreeze_backbone_at_epoch=3)]
)
def test_callback_of_lightning_that_comes_back_is_exact(tmp_path, make):
    save(tmp_path, Finetuned, [make()])
    assert {it.level for it in verdicts_of(tmp_path, Finetuned, [make()]).values()} == {Level.EXACT}


def test_optimizer_over_parameters_in_another_order_is_approximate(tmp_path):
    class Square(Net):
        def __init__(self, **options):
            super().__init__(**options)
            self.a, self.b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

        def compute_loss(self, batch, batch_idx):
            return super().compute_loss([self.b(self.a(batch[0])), batch[1]], batch_idx)

    class Other(Square):
        def configure_optimizers(self):
            return torch.optim.AdamW([*self.b.parameters(), *self.a.parameters(), *self.layer.parameters()])

    save(tmp_path, Square)
    assert "optimizer_parameters" in refused(tmp_path, Other)


BROKEN = {
    "randomness": (rng, "restore", lambda state: None),
    "metrics": (logged, "restore_metrics", lambda module, saved: None),
    "logged values": (logged, "restore", lambda trainer, saved: None),
}


@pytest.mark.parametrize("part", BROKEN)
def test_twin_that_does_not_restore_a_part_finds_it_approximate(tmp_path, monkeypatch, part):
    save(tmp_path)
    owner, name, nothing = BROKEN[part]
    monkeypatch.setattr(owner, name, nothing)
    assert verdicts_of(tmp_path)[part].level == Level.APPROXIMATE


def test_twin_whose_evidence_is_never_the_same_is_never_exact(tmp_path, monkeypatch):
    save(tmp_path, callbacks=[Counting()])
    monkeypatch.setattr(restorer.evidence, "same", lambda one, other: False)
    found = verdicts_of(tmp_path, callbacks=[Counting()])
    for part in ("optimizers", "lr_schedulers", "metrics", "logged values", "randomness", "Counting"):
        assert found[part].level == Level.APPROXIMATE


def test_exactness_names_what_is_used_on_purpose_apart_from_what_is_broken():
    of_file = Verdict("learning rate", Level.FROM_FILE, "0.1 from the file, the script says 0.5")
    of_script = Verdict("weight", Level.FROM_SCRIPT, "5.0 from the script, the file says 1.0")
    broken = Verdict("loader", Level.APPROXIMATE, "no index")
    assert exactness([Verdict("weights", Level.EXACT, "read back")]) == "exact"
    assert exactness([of_file]) == "exact (learning rate 0.1 from the file, the script says 0.5)"
    assert exactness([of_script]) == "exact but for: weight 5.0 from the script, the file says 1.0"
    assert exactness([broken, of_script]).startswith("loader: approximate (no index); weight 5.0 from the script")
