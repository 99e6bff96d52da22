"""The law for a second fit of the same trainer, with a larger ``max_epochs`` and a validation in between."""

from __future__ import annotations

import pytest
import torch
from nets import MixedNet, PlainNet, loader, trainer

from checkpointable import Checkpoints, latest
from checkpointable.resume import restorer

ALL = {"save_interval": 1, "save_last_k": -1, "save_top_k": -1, "every_n_epochs": 1, "strict_resume": True}
SHORT, LONG = 2, 4


class PlainSeeing(PlainNet):
    """Records its batches."""

    def __init__(self, **options):
        torch.manual_seed(0)
        super().__init__(**options)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch[0].tolist()))
        return super().training_step(batch, batch_idx)


class Seeing(MixedNet, PlainSeeing):
    pass


def data():
    return loader(4, shuffle=True), loader(2)


def end(own, net):
    return net.seen, net.layer.weight.tolist(), own.current_epoch, own.global_step, torch.rand(1).item()


def fit_twice(where, net, *, validates, resumes=False):
    """A fit, a validation if asked for, and a longer fit."""
    torch.manual_seed(1)
    own = trainer(where, max_epochs=SHORT)
    own.fit(net, *data())
    if validates:
        own.validate(net, torch.utils.data.DataLoader(loader(2).dataset, shuffle=True), verbose=False)
        torch.rand(5)
    own.fit_loop.max_epochs = LONG
    own.fit(net, *data(), ckpt_path=latest(where) if resumes else None)
    return own


def straight_and_resumed(where, *, validates):
    net, own = Seeing(dirpath=where / "straight", **ALL), trainer(where, max_epochs=LONG)
    torch.manual_seed(1)
    own.fit(net, *data())
    straight, net = end(own, net), Seeing(dirpath=where / "again", **ALL)
    return straight, end(fit_twice(where / "again", net, validates=validates, resumes=True), net)


@pytest.mark.parametrize("validates", [False, True])
def test_second_fit_from_the_last_file_of_the_first_is_the_longer_run(tmp_path, validates):
    straight, resumed = straight_and_resumed(tmp_path, validates=validates)
    assert resumed == straight


def test_second_fit_after_a_validation_is_not_the_longer_run_without_the_random_states(tmp_path, monkeypatch):
    """The twin."""
    monkeypatch.setattr(restorer.rng, "restore", lambda states: None)
    monkeypatch.setattr(restorer.evidence, "same", lambda saved, now: True)  # the report does not notice
    straight, resumed = straight_and_resumed(tmp_path, validates=True)
    assert resumed != straight


@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_second_fit_without_a_file_is_that_of_plain_lightning_and_each_of_its_files_resumes_it(tmp_path, validates):
    plain = PlainSeeing()
    expected = end(fit_twice(tmp_path / "plain", plain, validates=validates), plain)
    net = Seeing(dirpath=tmp_path / "ours", **ALL)
    ended = end(fit_twice(tmp_path / "ours", net, validates=validates), net)
    assert ended == expected
    for info in Checkpoints(tmp_path / "ours"):
        if info.epoch < SHORT:
            continue
        torch.manual_seed(9)
        again, own = Seeing(dirpath=tmp_path / str(info.batch), **ALL), trainer(tmp_path, max_epochs=LONG)
        own.fit(again, *data(), ckpt_path=info.path)
        seen, *rest = end(own, again)
        assert [seen, *rest] == [ended[0][len(ended[0]) - len(seen) :], *ended[1:]]
        assert len(seen) == 4 * LONG - 4 * info.epoch - info.batch
