"""How many functions and files of the package one save and one resume pass, and how often a call crosses a file border.

This measures structure, not speed: fewer files and crossings are easier to follow. One interval save is traced from the
end of its batch to the fetch of the next one; the file is on disk by then. A resume is traced from the call of ``fit``
to the fetch of the first resumed batch. A crossing is a call whose nearest caller inside the package is in another
file. ``--pairs`` lists which files call which.
"""

import argparse
import collections
import logging
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

import checkpointable
from checkpointable import CheckpointingModule

PACKAGE = str(Path(checkpointable.__file__).parent)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


class Trace:
    """Notes every call of a function of the package, on every thread, between ``start`` and ``stop``."""

    def __init__(self):
        self.functions, self.pairs = set(), collections.Counter()

    def start(self):
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def stop(self):
        threading.setprofile(None)
        sys.setprofile(None)

    def _note(self, frame, event, _):
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(PACKAGE):
            return
        self.functions.add((name, frame.f_code.co_qualname, frame.f_code.co_firstlineno))
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(PACKAGE):
            caller = caller.f_back
        if caller is not None and caller.f_code.co_filename != name:
            self.pairs[caller.f_code.co_filename, name] += 1

    def report(self, what, with_pairs):
        files = {name for name, *_ in self.functions}
        print(f"{what}: {len(self.functions)} functions, {len(files)} files, {self.pairs.total()} border crossings")
        for (caller, called), count in self.pairs.most_common() if with_pairs else ():
            print(f"  {count:4} {caller.removeprefix(PACKAGE)} -> {called.removeprefix(PACKAGE)}")
        if with_pairs:
            print("  files:", *sorted(name.removeprefix(PACKAGE) for name in files))


class Net(CheckpointingModule):
    def __init__(self, directory, on_batch_end=lambda batch_idx: None):
        super().__init__(save_interval=3, dirpath=directory, save_last=False, async_save=False)
        self.net = torch.nn.Linear(4, 1)
        self.on_batch_end = on_batch_end

    def compute_loss(self, batch):
        return self.net(batch).square().mean()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        super().on_train_batch_end(outputs, batch, batch_idx)
        self.on_batch_end(batch_idx)


class Samples(Dataset):
    def __init__(self, on_fetch=lambda: None):
        self.on_fetch = on_fetch

    def __len__(self):
        return 8

    def __getitem__(self, index):
        self.on_fetch()
        return torch.rand(4)


def fit(net, samples, root, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=root, **quiet)
    trainer.fit(net, DataLoader(samples, shuffle=True), **options)


def traced_save(root):
    trace = Trace()
    net = Net(f"{root}/save", on_batch_end=lambda batch_idx: trace.start() if batch_idx == 5 else None)
    fit(net, Samples(on_fetch=trace.stop), root)
    return trace


def traced_resume(root):
    trace = Trace()
    path = str(next(Path(root, "save").glob("*.ckpt")))
    net = Net(f"{root}/save")
    trace.start()
    fit(net, Samples(on_fetch=trace.stop), root, ckpt_path=path)
    return trace


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", action="store_true", help="list the pairs of files between which calls cross")
    with_pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as root:
        traced_save(root).report("one interval save", with_pairs)
        traced_resume(root).report("one resume", with_pairs)


if __name__ == "__main__":
    main()
