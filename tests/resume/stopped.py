"""Trainings that are stopped and resumed, for the tests of the flight recorder."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch
from nets import Net, loader, trainer

from checkpointable import latest
from checkpointable.resume import restorer


class StoppedError(Exception):
    """Ends a training as a kill does: nothing is saved."""


class Stop(L.Callback):
    """Raises before the batch after so many."""

    def __init__(self, batches: int | None) -> None:
        self.left = batches

    def on_train_batch_start(self, *_):
        if self.left == 0:
            raise StoppedError
        self.left = None if self.left is None else self.left - 1


class Noisy(Net):
    """Its loss depends on the random numbers."""

    def compute_loss(self, batch, batch_idx):
        inputs, labels = batch
        return super().compute_loss((inputs + torch.randn_like(inputs), labels), batch_idx)


def train(where: Path, net_class=Noisy, *, stop=None, dirpath=None, ckpt_path="latest", net_options=(), **options):
    """Resume from the newest file, and train this many batches or to the end. Returns the module."""
    net = net_class(
        dirpath=dirpath or where,
        **{"save_interval": 4, "save_on_exception": False, "save_top_k": 0, **dict(net_options)},
    )
    ckpt_path = latest(where) if ckpt_path == "latest" else ckpt_path
    fitted = trainer(where, **{"max_epochs": 2, "callbacks": [Stop(stop)], **options})
    try:
        fitted.fit(net, loader(10, shuffle=True), ckpt_path=ckpt_path)
    except StoppedError:
        assert stop is not None
    return net


def trace_files(where: Path) -> list[Path]:
    return sorted(where.glob(".checkpointable-*.trace"))


def confirmed(batches, what="losses"):
    return [f"resume confirmed: the {batches} batches up to the kill gave the same {what}, bit for bit"]


def without_random_states(monkeypatch):
    """The random states are restored nowhere, and the report does not notice."""
    monkeypatch.setattr(restorer.rng, "restore", lambda states: None)
    monkeypatch.setattr(restorer.evidence, "same", lambda saved, now: True)


@pytest.fixture
def said(caplog):
    caplog.set_level("INFO")
    words = ("confirmed", "nothing to compare", "before the kill")

    def taken():
        found = [it.message for it in caplog.records if any(word in it.message for word in words)]
        caplog.clear()
        return [message.removeprefix("checkpointable: ") for message in found]

    return taken
