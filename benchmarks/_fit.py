"""A training of any size, and every way to save it while it runs: each library as its manual says, and ours.

All save the whole training state (weights, Adam, loops) after the same batches and keep the newest file.
"""

import contextlib
import ctypes
import gc
import logging
import os
import shutil
import threading
import time
import warnings

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch.utils.data import DataLoader, TensorDataset

from checkpointable import CheckpointingMixin

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")
MARKS = ("begin", "backward", "update", "step")


class Net(L.LightningModule):
    """Residual layers of equal width, Adam, and the time at which each part of a batch ended.

    Args:
        params: About how many parameters.
        layers: The number of layers; ``None`` = few wide ones, as in real networks of this size.
        batch_size: Rows per batch. Sets how much a batch computes.
        options: Arguments of the next base class.
    """

    def __init__(self, params, layers=None, batch_size=64, **options):
        super().__init__(**options)
        layers = layers or (10 if params < 30_000_000 else 24)
        width = max(1, round((params / layers) ** 0.5))
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(layers))
        self.rows = torch.randn(batch_size, width)
        self.clock = {mark: [] for mark in MARKS}
        self.processor_time = time.thread_time
        self.at_step = None  # called after the optimizer's step, before any save, with the number of steps

    def training_step(self, batch, batch_idx):
        self.mark("begin")
        hidden = self.rows
        for layer in self.layers:
            hidden = hidden + layer(torch.relu(hidden))
        return (hidden - torch.randn_like(hidden)).square().mean()

    def on_after_backward(self):
        self.mark("backward")

    def configure_gradient_clipping(self, *args, **kwargs):
        self.mark("update")  # after every on_before_optimizer_step

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-5)
        optimizer.register_step_post_hook(lambda *_: self.note_step())
        return optimizer

    def note_step(self):
        self.mark("step")
        if self.at_step is not None:
            self.at_step(len(self.clock["step"]))

    def mark(self, what):
        self.clock[what].append((time.perf_counter(), self.processor_time()))

    def state_bytes(self):
        """Weights and the two moments of Adam."""
        return 12 * sum(weight.numel() for weight in self.parameters())

    def state_tensors(self):
        """With Adam's count of steps, which is a tensor too."""
        return 4 * sum(1 for _ in self.parameters())


class Ours(CheckpointingMixin, Net):
    """The same module, saved by this library."""


class Every(L.Callback):
    """Calls ``save`` after every so many batches.

    Args:
        batches: Batches between two saves.
        save: Called with the trainer and the step.
        close: Called when training is over.
    """

    def __init__(self, batches, save, close=lambda: None):
        self.batches, self.save, self.close = batches, save, close

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (batch_idx + 1) % self.batches == 0:
            self.save(trainer, batch_idx + 1)

    def on_train_end(self, trainer, module):
        self.close()


class TrainingThreads:
    """The threads that compute the training: this one and torch's own. Threads that start later are not counted.

    A call returns their processor time in seconds.
    """

    def __init__(self):
        torch.ones(10_000_000).add_(1)  # torch starts its threads with the first work for them
        others = set(os.listdir("/proc/self/task")) - {str(threading.get_native_id())}
        self.files = [os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY) for thread in others]

    def __call__(self):
        theirs = sum(int(os.pread(file, 100, 0).split()[0]) for file in self.files)
        return time.thread_time() + theirs / 1e9

    def close(self):
        for file in self.files:
            os.close(file)


def no_save(net, *_):
    return Net(**net), {}


def model_checkpoint(net, interval, directory):
    callback = ModelCheckpoint(dirpath=directory, filename="{step}", every_n_train_steps=interval, save_top_k=1)
    return Net(**net), {"callbacks": [callback], "enable_checkpointing": True}


def async_checkpoint_io(net, interval, directory):
    module, options = model_checkpoint(net, interval, directory)
    return module, {**options, "plugins": [AsyncCheckpointIO()]}


def save_checkpoint(net, interval, directory):
    def save(trainer, step):
        trainer.save_checkpoint(f"{directory}/step={step}.ckpt")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/step={step - interval}.ckpt")

    return Net(**net), {"callbacks": [Every(interval, save)]}


def dcp_async_save(net, interval, directory):
    """Saves what ``AsyncCheckpointIO`` is given, one save at a time. The saving thread deletes the older one."""
    import torch.distributed.checkpoint as dcp  # here, so that a resume does not import it

    pending = []

    def wait():
        if pending:
            pending.pop().result()

    def save(trainer, step):
        wait()
        checkpoint = trainer._checkpoint_connector.dump_checkpoint()
        future = dcp.async_save(checkpoint, checkpoint_id=f"{directory}/step={step}")
        older = f"{directory}/step={step - interval}"
        future.add_done_callback(lambda _: shutil.rmtree(older, ignore_errors=True))
        pending.append(future)

    return Net(**net), {"callbacks": [Every(interval, save, wait)]}


def ours(net, interval, directory, **how):
    options = {"save_interval": None, "every_n_train_steps": interval, "monitor": None, "save_top_k": 0}
    module = Ours(**net, **options, save_last=False, dirpath=directory, filename="step_{step}", **how)
    return module, {"enable_checkpointing": True}


def ours_async(net, interval, directory):
    return ours(net, interval, directory, async_save=True)


def ours_in_the_loop(net, interval, directory):
    return ours(net, interval, directory, async_save=False)


CONTROL, PEER, ASYNC_PEER, OURS = "no save", "`ModelCheckpoint`", "`ModelCheckpoint` + `AsyncCheckpointIO`", "**ours**"
OURS_IN_THE_LOOP = "ours, `async_save=False`"
CONTESTANTS = {
    CONTROL: no_save,
    PEER: model_checkpoint,
    "`trainer.save_checkpoint`": save_checkpoint,
    ASYNC_PEER: async_checkpoint_io,
    "DCP `async_save`": dcp_async_save,
    OURS_IN_THE_LOOP: ours_in_the_loop,
    OURS: ours_async,
}


def files(directory):
    """The saves that are visible under their names. Asked at every step, so none is missed."""
    return {entry for entry in os.listdir(directory) if entry.startswith("step")}


def fit(module, batches, directory, ckpt_path=None, enable_checkpointing=False, **options):
    """Train one epoch of so many batches. Returns when all saves are done."""
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=directory,
        enable_checkpointing=enable_checkpointing,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.zeros(batches, 1)), batch_size=1), ckpt_path=ckpt_path)
    return trainer


def clear_up(directory):
    """Free memory, sync and delete files, so that nothing slows down the next fit."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    for parent, _, names in os.walk(directory):
        for name in names:
            descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    shutil.rmtree(directory, ignore_errors=True)
