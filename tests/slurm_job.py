"""A job of SLURM in this process, with a ``scontrol`` of our own on the path, and fits in it."""

from __future__ import annotations

import os
import signal

import lightning as L
import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment
from nets import Net, loader, trainer

from checkpointable.saving import requeued

ONE_TASK = {
    "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0", "SLURM_RESTART_COUNT": "0",
}  # fmt: skip


def start_job(tmp_path, monkeypatch):
    """Be a process of a job, whose ``scontrol`` writes down the commands that it gets."""
    commands = tmp_path / "bin" / "scontrol"
    commands.parent.mkdir()
    commands.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/commands\n')
    commands.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands.parent}{os.pathsep}{os.environ['PATH']}")
    for name, value in ONE_TASK.items():
        monkeypatch.setenv(name, value)
    start_process(monkeypatch, restarts=0)


def start_process(monkeypatch, *, restarts):
    """As if the job's process had just begun."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    monkeypatch.setattr(requeued, "_FITS", [])


class Sending(L.Callback):
    """Sends the signal from a hook, the ``at``-th time that it runs, counted from 0."""

    def __init__(self, hook, at, number=signal.SIGUSR1):
        self.at, self.number, self.calls = at, number, 0
        setattr(self, hook, self.count)

    def count(self, *_, **__):
        if self.calls == self.at:
            signal.raise_signal(self.number)
        self.calls += 1


class Recorded(Net):
    """Notes what it trains and validates."""

    def __init__(self, **options):
        torch.manual_seed(3)
        super().__init__(learning_rate=0.1, save_top_k=0, **options)
        self.seen = []

    def compute_loss(self, batch, batch_idx):
        loss = super().compute_loss(batch, batch_idx)
        self.seen.append((self.trainer.state.stage.value, self.current_epoch, batch_idx, float(loss.detach())))
        return loss


def fit(root, net, *callbacks, environment=None, **options):
    """Returns the exit status of a process that trains so; ``None`` if it trains to its end."""
    torch.manual_seed(7)
    options = {"max_epochs": 2, "val_check_interval": 3, "num_sanity_val_steps": 0, **options}
    made = trainer(root, callbacks=list(callbacks), plugins=[environment or SLURMEnvironment()], **options)
    try:
        made.fit(net, loader(6, shuffle=True), loader(4, seed=9))
    except SystemExit as ended:
        return ended.code
    return None


def commands(tmp_path):
    path = tmp_path / "commands"
    return path.read_text().splitlines() if path.exists() else []
